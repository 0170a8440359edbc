//! Ids of 40 hexadecimal digits.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

/// The id of a pool, which follows from what the pool calls itself.
pub(super) fn of_pool(uuid: &str) -> String {
    let hash = digest(&SHA256, format!("pool:{uuid}").as_bytes());
    HEXLOWER.encode(&hash.as_ref()[..20])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_follow_from_the_uuid() {
        // printf pool:00000000000000000000000000000001 | sha256sum
        let id = of_pool("00000000000000000000000000000001");
        assert_eq!(id.len(), 40);
        assert_eq!(id, of_pool("00000000000000000000000000000001"));
        assert_ne!(id, of_pool("00000000000000000000000000000002"));
    }
}
