//! The cache against a map of what was kept, and across restarts.

use proptest::prelude::*;

use super::*;

fn name(id: u128, name: &str) -> FileName {
    FileName { tenant: TenantId::single(), id: BlockId(id), name: name.to_owned() }
}

fn content(seed: u8, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 251) as u8 ^ seed).collect()
}

fn cache(dir: &Path, limit_bytes: u64) -> PieceCache {
    PieceCache::open(dir.to_owned(), limit_bytes, Metrics::default())
}

fn keep(cache: &PieceCache, name: &FileName, content: &[u8], kept: Range<usize>) {
    let pieces = Pieces::of_content(content);
    let bytes = pieces.bytes(&kept);
    cache.keep(name, &pieces, kept.start, &content[bytes.start as usize..bytes.end as usize]);
}

#[test]
fn what_is_kept_is_read_by_this_process_and_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (file, content) = (name(1, "spans.parquet"), content(7, 9 * PIECE_BYTES + 100));
    let pieces = Pieces::of_content(&content);
    let first = cache(dir.path(), 1 << 30);
    keep(&first, &file, &content, 2..4);
    keep(&first, &file, &content, 9..10);
    for cache in [first, cache(dir.path(), 1 << 30)] {
        let piece = PIECE_BYTES as u64;
        let read = |range: Range<u64>| cache.read(&file, &pieces, &range);
        assert_eq!(read(2 * piece + 5..4 * piece).unwrap(), content[2 * PIECE_BYTES + 5..4 * PIECE_BYTES]);
        assert_eq!(read(9 * piece..9 * piece + 100).unwrap(), content[9 * PIECE_BYTES..]);
        assert_eq!(read(2 * piece..4 * piece + 1), None);
        assert_eq!(read(0..1), None);
        assert_eq!(cache.read(&name(2, "spans.parquet"), &pieces, &(0..1)), None);
    }
}

#[test]
fn a_piece_that_was_allocated_and_never_filled_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let (file, content) = (name(1, "index.bin"), content(7, 3 * PIECE_BYTES));
    let pieces = Pieces::of_content(&content);
    keep(&cache(dir.path(), 1 << 30), &file, &content, 0..3);
    let path = dir.path().join(TenantId::single().as_str()).join(BlockId(1).to_string()).join("index.bin");
    let written = File::options().write(true).open(path).unwrap();
    written.write_all_at(&[0; PIECE_BYTES], PIECE_BYTES as u64).unwrap();
    let cache = cache(dir.path(), 1 << 30);
    assert!(cache.read(&file, &pieces, &(0..10)).is_some());
    assert_eq!(cache.read(&file, &pieces, &(PIECE_BYTES as u64..PIECE_BYTES as u64 + 1)), None);
    assert_eq!(cache.metrics.cache_rotten.get(), 1);
}

#[test]
fn a_piece_that_rots_and_a_file_that_is_cut_short_are_fetched_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (file, content) = (name(1, "spans.parquet"), content(7, 3 * PIECE_BYTES));
    let pieces = Pieces::of_content(&content);
    let path = dir.path().join(TenantId::single().as_str()).join(BlockId(1).to_string()).join(&file.name);
    let first = cache(dir.path(), 1 << 30);
    let check = |cache: &PieceCache| {
        assert_eq!(cache.read(&file, &pieces, &(5..10)), None);
        keep(cache, &file, &content, 0..3);
        assert_eq!(cache.read(&file, &pieces, &(5..10)).unwrap(), content[5..10]);
    };
    check(&first);
    File::options().write(true).open(&path).unwrap().write_all_at(&[0xff], 1).unwrap();
    check(&first);
    drop(first);
    for size in [0, PIECE_BYTES as u64 + 1] {
        File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
        let next = cache(dir.path(), 1 << 30);
        check(&next);
        assert_eq!(next.state.lock().held_bytes, content.len() as u64);
    }
}

#[test]
fn small_files_stay_when_large_ones_come() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path(), 10 * PIECE_BYTES as u64);
    let content = content(1, 4 * PIECE_BYTES);
    keep(&cache, &name(1, "index.bin"), &content, 0..4);
    for id in 2..9 {
        keep(&cache, &name(id, "spans.parquet"), &content, 0..4);
    }
    let is_there = |name| cache.read(&name, &Pieces::of_content(&content), &(0..1)).is_some();
    assert!(is_there(name(1, "index.bin")));
    assert!(is_there(name(8, "spans.parquet")));
    assert!(!is_there(name(2, "spans.parquet")));
}

#[test]
fn a_directory_that_cannot_be_written_is_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    fs::write(&blocked, "not a directory").unwrap();
    let cache = cache(&blocked, 1 << 30);
    let content = content(1, PIECE_BYTES);
    keep(&cache, &name(1, "index.bin"), &content, 0..1);
    assert_eq!(cache.read(&name(1, "index.bin"), &Pieces::of_content(&content), &(0..1)), None);
    assert!(cache.metrics.cache_errors.get() > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn reading_gives_what_was_kept_or_nothing_within_the_budget(
        steps in prop::collection::vec((0..4u128, 0..2usize, 0..6usize, 1..4usize, 0..10u8), 1..60),
        limit_pieces in 0..20u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let limit_bytes = limit_pieces * PIECE_BYTES as u64;
        let mut cache = cache(dir.path(), limit_bytes);
        for (id, file, first, count, action) in steps {
            let content = content(id as u8, 7 * PIECE_BYTES + 9);
            let pieces = Pieces::of_content(&content);
            let name = name(id, ["spans.parquet", "index.bin"][file]);
            let range = first..(first + count).min(8);
            match action {
                0 => cache = PieceCache::open(dir.path().to_owned(), limit_bytes, Metrics::default()),
                1 => cache.remove(&name.tenant, name.id),
                2..6 => keep(&cache, &name, &content, range),
                _ => {
                    let bytes = pieces.bytes(&range);
                    if let Some(read) = cache.read(&name, &pieces, &bytes) {
                        prop_assert!(read == content[bytes.start as usize..bytes.end as usize]);
                    }
                }
            }
            let state = cache.state.lock();
            prop_assert!(state.held_bytes <= limit_bytes);
            prop_assert_eq!(state.held_bytes, state.files.values().map(|entry| entry.held_bytes).sum::<u64>());
        }
    }
}
