//! Reed-Solomon parity: `k` shards of data, `m` shards of parity, any `k` of the `k + m` give all.
//!
//! The code is systematic (data shards are the data) and works on each byte column by itself, so
//! any range of columns can be encoded or rebuilt alone.
//!
//! - Field: GF(2^8), bytes as polynomials over GF(2) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d);
//!   addition is exclusive or. 2 generates the multiplicative group.
//! - Parity shard `i` (from 0; shard number `k + i`) is the sum over the data shards `j` of
//!   `g[i][j] * data[j]`, with a Cauchy matrix whose rows and columns are scaled so that its
//!   first row and first column are all ones. With `x(i) = k + i` and `y(j) = j` as field
//!   elements:
//!
//!   `g[i][j] = ((x(0) + y(j)) * (x(i) + y(0))) / ((x(i) + y(j)) * (x(0) + y(0)))`
//!
//! Every square part of a Cauchy matrix can be inverted (Blömer and others, "An XOR-based
//! erasure-resilient coding scheme", ICSI TR-95-048), and scaling by nonzero factors keeps that; so
//! any `k` shards suffice. The scaling makes the first parity shard a plain exclusive or, and
//! with one data shard all parity shards copies.

mod gf;

use crate::error::{Error, Result};
use gf::Factor;

/// The most shards that a code may have in all.
pub const MAX_SHARDS: usize = 32;

/// How many columns are worked on at a time: small enough that what is being summed up stays in
/// the nearest cache.
const BLOCK: usize = 8 << 10;

/// The code for one number of data and parity shards.
#[derive(Clone, Debug)]
pub struct Code {
    data: usize,
    parity: Map,
}

/// A linear map from some shards to others.
#[derive(Clone, Debug)]
struct Map {
    rows: Vec<Vec<Factor>>,
}

impl Map {
    fn apply(&self, from: &[&[u8]], to: &mut [&mut [u8]]) {
        assert_eq!(to.len(), self.rows.len(), "one output for each row");
        let Some(width) = to.first().map(|out| out.len()) else {
            return;
        };
        assert!(to.iter().all(|out| out.len() == width), "outputs are equally long");
        assert!(from.iter().all(|shard| shard.len() == width), "inputs are as long as outputs");
        for start in (0..width).step_by(BLOCK) {
            let end = width.min(start + BLOCK);
            for (row, out) in self.rows.iter().zip(to.iter_mut()) {
                assert_eq!(row.len(), from.len(), "one input for each column");
                let out = &mut out[start..end];
                let mut first = true;
                for (factor, shard) in row.iter().zip(from).filter(|(f, _)| !f.is_zero()) {
                    if std::mem::take(&mut first) {
                        factor.set(&shard[start..end], out);
                    } else {
                        factor.add(&shard[start..end], out);
                    }
                }
                if first {
                    out.fill(0);
                }
            }
        }
    }
}

impl Code {
    /// The code of `data` and `parity` shards.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no data shard or more than [`MAX_SHARDS`] in all.
    pub fn new(data: usize, parity: usize) -> Result<Self> {
        if data == 0 || data.saturating_add(parity) > MAX_SHARDS {
            let what = format!(
                "{data}+{parity} shards can't be had: at least one for data, at most {MAX_SHARDS}"
            );
            return Err(Error::Invalid(what));
        }
        let rows = (0..parity)
            .map(|i| (0..data).map(|j| Factor::new(coefficient(data, i, j))).collect())
            .collect();
        Ok(Self { data, parity: Map { rows } })
    }

    /// How many shards hold data.
    pub fn data_shards(&self) -> usize {
        self.data
    }

    /// How many shards hold parity.
    pub fn parity_shards(&self) -> usize {
        self.parity.rows.len()
    }

    /// Computes all parity shards of `data`.
    ///
    /// # Panics
    /// When the number of shards is not the code's, or their lengths differ.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        assert_eq!(data.len(), self.data, "all data shards are given");
        self.parity.apply(data, parity);
    }

    /// What computes the shards `wanted` from the `k` shards `present`.
    ///
    /// # Panics
    /// When `present` aren't `k` different shards of the code, or `wanted` names others.
    pub fn decoder(&self, present: &[usize], wanted: &[usize]) -> Decoder {
        assert_eq!(present.len(), self.data, "as many shards are present as hold data");
        let known = present.iter().map(|shard| self.row(*shard)).collect();
        let inverse = invert(known);
        let rows = wanted
            .iter()
            .map(|shard| {
                let row = self.row(*shard);
                (0..self.data)
                    .map(|column| {
                        let terms = row.iter().zip(&inverse).map(|(a, b)| gf::mul(*a, b[column]));
                        Factor::new(terms.fold(0, |sum, term| sum ^ term))
                    })
                    .collect()
            })
            .collect();
        Decoder { map: Map { rows } }
    }

    /// The row of the whole code's matrix that gives `shard` from the data.
    fn row(&self, shard: usize) -> Vec<u8> {
        if shard < self.data {
            let mut row = vec![0; self.data];
            row[shard] = 1;
            return row;
        }
        self.parity.rows[shard - self.data].iter().map(Factor::value).collect()
    }
}

/// See the module's text.
fn coefficient(data: usize, i: usize, j: usize) -> u8 {
    let x = |i: usize| u8::try_from(data + i).expect("there are at most 32 shards");
    let y = |j: usize| u8::try_from(j).expect("there are at most 32 shards");
    let above = gf::mul(x(0) ^ y(j), x(i) ^ y(0));
    let below = gf::mul(x(i) ^ y(j), x(0) ^ y(0));
    gf::mul(above, gf::invert(below))
}

/// The inverse of a square matrix, by elimination.
fn invert(mut matrix: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let size = matrix.len();
    for (i, row) in matrix.iter_mut().enumerate() {
        row.resize(size * 2, 0);
        row[size + i] = 1;
    }
    for column in 0..size {
        let pivot = (column..size)
            .find(|row| matrix[*row][column] != 0)
            .expect("different rows of the code are independent");
        matrix.swap(column, pivot);
        let scale = gf::invert(matrix[column][column]);
        matrix[column].iter_mut().for_each(|value| *value = gf::mul(*value, scale));
        let pivot = matrix[column].clone();
        for (_, row) in matrix.iter_mut().enumerate().filter(|(row, _)| *row != column) {
            let scale = row[column];
            row.iter_mut().zip(&pivot).for_each(|(value, p)| *value ^= gf::mul(*p, scale));
        }
    }
    matrix.iter_mut().for_each(|row| drop(row.drain(..size)));
    matrix
}

/// Computes lost shards from others: see [`Code::decoder`].
#[derive(Clone, Debug)]
pub struct Decoder {
    map: Map,
}

impl Decoder {
    /// Computes the wanted shards, in the order and from the shards that the decoder was made for.
    ///
    /// # Panics
    /// When the number of shards is not the decoder's, or their lengths differ.
    pub fn decode(&self, present: &[&[u8]], wanted: &mut [&mut [u8]]) {
        self.map.apply(present, wanted);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shards(code: &Code, width: usize, seed: u64) -> Vec<Vec<u8>> {
        let mut state = seed | 1;
        let mut all: Vec<Vec<u8>> = (0..code.data_shards())
            .map(|_| {
                (0..width)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        (state >> 56) as u8
                    })
                    .collect()
            })
            .collect();
        let mut parity = vec![vec![0xaa; width]; code.parity_shards()];
        code.encode(
            &all.iter().map(|s| &s[..]).collect::<Vec<_>>(),
            &mut parity.iter_mut().map(|s| &mut s[..]).collect::<Vec<_>>(),
        );
        all.append(&mut parity);
        all
    }

    proptest! {
        #[test]
        fn any_k_shards_give_all(
            data in 1usize..12,
            parity in 0usize..6,
            width in 0usize..300,
            seed in any::<u64>(),
            order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let code = Code::new(data, parity).unwrap();
            let all = shards(&code, width, seed);
            let present: Vec<usize> =
                order.into_iter().filter(|s| *s < data + parity).take(data).collect();
            let wanted: Vec<usize> = (0..data + parity).collect();
            let mut out = vec![vec![0x55; width]; wanted.len()];
            code.decoder(&present, &wanted).decode(
                &present.iter().map(|s| &all[*s][..]).collect::<Vec<_>>(),
                &mut out.iter_mut().map(|s| &mut s[..]).collect::<Vec<_>>(),
            );
            prop_assert_eq!(out, all);
        }
    }

    #[test]
    fn every_choice_of_survivors_of_8_3_works() {
        let code = Code::new(8, 3).unwrap();
        let all = shards(&code, 3, 7);
        for mask in (0u32..1 << 11).filter(|mask| mask.count_ones() == 8) {
            let present: Vec<usize> = (0..11).filter(|s| mask >> s & 1 == 1).collect();
            let wanted: Vec<usize> = (0..11).filter(|s| mask >> s & 1 == 0).collect();
            let mut out = vec![vec![0; 3]; 3];
            code.decoder(&present, &wanted).decode(
                &present.iter().map(|s| &all[*s][..]).collect::<Vec<_>>(),
                &mut out.iter_mut().map(|s| &mut s[..]).collect::<Vec<_>>(),
            );
            for (shard, bytes) in wanted.iter().zip(out) {
                assert_eq!(bytes, all[*shard]);
            }
        }
    }

    #[test]
    fn the_widest_codes_survive() {
        for (data, parity) in [(1, 31), (16, 16), (28, 4), (32, 0)] {
            let code = Code::new(data, parity).unwrap();
            let all = shards(&code, 5, 3);
            // The last shards of the code are the hardest case: as little data as can be.
            let present: Vec<usize> = (parity..data + parity).collect();
            let wanted: Vec<usize> = (0..parity).collect();
            let mut out = vec![vec![0; 5]; parity];
            code.decoder(&present, &wanted).decode(
                &present.iter().map(|s| &all[*s][..]).collect::<Vec<_>>(),
                &mut out.iter_mut().map(|s| &mut s[..]).collect::<Vec<_>>(),
            );
            assert_eq!(out, all[..parity]);
        }
    }

    #[test]
    fn first_parity_is_exclusive_or_and_one_data_shard_is_copied() {
        let all = shards(&Code::new(2, 1).unwrap(), 100, 9);
        let xor: Vec<u8> = all[0].iter().zip(&all[1]).map(|(a, b)| a ^ b).collect();
        assert_eq!(all[2], xor);
        let all = shards(&Code::new(1, 3).unwrap(), 100, 9);
        assert!(all.iter().all(|shard| *shard == all[0]));
    }

    /// Frozen: another program must get the same from the module's text.
    #[test]
    fn the_matrix_is_as_published() {
        let code = Code::new(4, 2).unwrap();
        assert_eq!(code.row(4), [1, 1, 1, 1]);
        assert_eq!(code.row(5), [1, 217, 92, 172]);
        let code = Code::new(8, 3).unwrap();
        assert_eq!(code.row(10), [1, 39, 217, 161, 92, 60, 172, 90]);
    }

    #[test]
    fn impossible_codes_are_refused() {
        assert!(Code::new(0, 1).is_err());
        assert!(Code::new(17, 16).is_err());
        assert!(Code::new(usize::MAX, 2).is_err());
    }
}
