//! Which code looks for candidates: all kinds find the same.

use super::judge::Judge;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};

/// A way to look for boundaries. Which one is used never changes where a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Kernel {
    /// All that this processor can run, the slowest first.
    pub fn available() -> Vec<Self> {
        let mut kernels = vec![Self(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            kernels.extend(Avx2::detect().map(|has| Self(Kind::Avx2(has))));
            kernels.extend(Avx512::detect().map(|has| Self(Kind::Avx512(has))));
        }
        kernels
    }

    /// The fastest that this processor can run.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(has) = Avx512::detect() {
                return Self(Kind::Avx512(has));
            }
            if let Some(has) = Avx2::detect() {
                return Self(Kind::Avx2(has));
            }
        }
        Self(Kind::Portable)
    }

    /// What it needs of the processor, for a log line.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "AVX-512",
        }
    }

    /// The first boundary of the chunk at the start of `data` with a length in `from..=to`.
    pub(super) fn first_cut(
        self,
        data: &[u8],
        from: usize,
        to: usize,
        judge: &Judge,
    ) -> Option<usize> {
        use std::ops::ControlFlow::{Break, Continue};
        let scanned = match self.0 {
            Kind::Portable => Continue(from),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(has) => has.scan(data, from, to, judge),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(has) => has.scan(data, from, to, judge),
        };
        match scanned {
            Break(cut) => Some(cut),
            Continue(rest) => portable::first_cut(data, rest, to, judge),
        }
    }
}
