//! Numbers stored as byte streams (Parquet's `BYTE_STREAM_SPLIT`), put together again.
//!
//! ```text
//!   page   a0 b0 c0 .. | a1 b1 c1 .. | a2 b2 c2 .. | a3 b3 c3 ..      first bytes, second bytes, ..
//!   pairs  a0a1 b0b1 c0c1 ..         | a2a3 b2b3 c2c3 ..
//!   value  a0a1a2a3 b0b1b2b3 ..
//! ```
//!
//! Each step joins two streams into one of twice the width, which compilers turn into vector instructions; byte by
//! byte it takes four times as long.

/// Values that are joined at once: what is in between stays in the first cache.
const JOINED_AT_ONCE: usize = 512;

/// A number that lies in as many streams as it has bytes.
pub(super) trait Streamed: Copy + Default {
    const BYTES: usize;

    /// Joins streams of one length, at most [`JOINED_AT_ONCE`], and adds the values.
    fn join(streams: &[&[u8]], values: &mut Vec<Self>);
}

impl Streamed for i32 {
    const BYTES: usize = 4;

    fn join(streams: &[&[u8]], values: &mut Vec<Self>) {
        let len = streams[0].len();
        let mut pairs = [[0u16; JOINED_AT_ONCE]; 2];
        join_bytes(streams, &mut pairs);
        let join = |(low, high): (&u16, &u16)| (u32::from(*low) | u32::from(*high) << 16) as Self;
        values.extend(pairs[0][..len].iter().zip(&pairs[1][..len]).map(join));
    }
}

impl Streamed for i64 {
    const BYTES: usize = 8;

    fn join(streams: &[&[u8]], values: &mut Vec<Self>) {
        let len = streams[0].len();
        let mut pairs = [[0u16; JOINED_AT_ONCE]; 4];
        join_bytes(streams, &mut pairs);
        let mut halves = [[0u32; JOINED_AT_ONCE]; 2];
        for (half, pairs) in halves.iter_mut().zip(pairs.chunks_exact(2)) {
            for ((joined, low), high) in half[..len].iter_mut().zip(&pairs[0]).zip(&pairs[1]) {
                *joined = u32::from(*low) | u32::from(*high) << 16;
            }
        }
        let join = |(low, high): (&u32, &u32)| (u64::from(*low) | u64::from(*high) << 32) as Self;
        values.extend(halves[0][..len].iter().zip(&halves[1][..len]).map(join));
    }
}

fn join_bytes(streams: &[&[u8]], pairs: &mut [[u16; JOINED_AT_ONCE]]) {
    for (pair, streams) in pairs.iter_mut().zip(streams.chunks_exact(2)) {
        for ((joined, low), high) in pair.iter_mut().zip(streams[0]).zip(streams[1]) {
            *joined = u16::from(*low) | u16::from(*high) << 8;
        }
    }
}

/// Adds the values of a page to those before.
pub(super) fn join_page<T: Streamed>(page: &[u8], values: &mut Vec<T>) {
    let len = page.len() / T::BYTES;
    values.reserve(len);
    for from in (0..len).step_by(JOINED_AT_ONCE) {
        let stream = |stream: usize| &page[stream * len + from..][..JOINED_AT_ONCE.min(len - from)];
        let streams: [&[u8]; 8] = std::array::from_fn(|place| stream(place % T::BYTES));
        T::join(&streams[..T::BYTES], values);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the format says: all first bytes, then all second bytes.
    fn split<const N: usize>(values: &[[u8; N]]) -> Vec<u8> {
        (0..N).flat_map(|byte| values.iter().map(move |value| value[byte])).collect()
    }

    proptest! {
        #[test]
        fn what_was_split_is_joined(values in prop::collection::vec(any::<i64>(), 0..1500), before in 0..3usize) {
            let mut joined = vec![7; before];
            join_page(&split(&values.iter().map(|value| value.to_le_bytes()).collect::<Vec<_>>()), &mut joined);
            prop_assert_eq!(&joined[before..], &values[..]);
            let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
            let mut joined = vec![7; before];
            join_page(&split(&values.iter().map(|value| value.to_le_bytes()).collect::<Vec<_>>()), &mut joined);
            prop_assert_eq!(&joined[before..], &values[..]);
        }
    }
}
