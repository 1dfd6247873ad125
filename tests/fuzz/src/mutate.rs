//! Mutations that find bugs in decoders: flipped bits, wrong lengths, cuts, splices, repetitions.

use spoor_testkit::rng::Rng;

const INTERESTING: [&[u8]; 10] = [
    &[0],
    &[0xff],
    &[0x7f],
    &[0x80],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0; 8],
    &[0xff; 8],
    b"\xf0\x9f\xa6\x8c",
    b"\xc3\x28",
];

/// Changes the input one to eight times.
pub fn mutate(rng: &mut Rng, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    for _ in 0..1 + rng.below(8) {
        if input.is_empty() {
            input.extend_from_slice(rng.pick::<&[u8]>(&INTERESTING));
            continue;
        }
        let at = rng.index(input.len());
        match rng.below(9) {
            0 => input[at] ^= 1 << rng.below(8),
            1 => input[at] = rng.bits() as u8,
            2 => input[at] = input[at].wrapping_add(1),
            3 => input.truncate(at),
            4 => drop(input.drain(at..(at + 1 + rng.index(16)).min(input.len()))),
            5 => {
                let piece = rng.pick(&INTERESTING);
                input.splice(at..at, piece.iter().copied());
            }
            6 => {
                let piece = rng.pick(&INTERESTING);
                let end = (at + piece.len()).min(input.len());
                input.splice(at..end, piece.iter().copied());
            }
            7 => {
                let end = (at + 1 + rng.index(64)).min(input.len());
                let piece = input[at..end].to_vec();
                let to = rng.index(input.len());
                input.splice(to..to, piece);
            }
            _ => {
                let other = rng.pick(seeds);
                let from = rng.index(other.len().max(1)).min(other.len());
                let end = (from + rng.index(128)).min(other.len());
                input.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
}
