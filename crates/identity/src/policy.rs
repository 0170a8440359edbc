//! What an administrator may set of logins, passwords and sessions.

use std::time::Duration;

/// How strict it is with logins, passwords and sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Failed logins of an account that cost nothing; after that one waits, longer each time.
    pub free_failures: u32,
    /// The same of an address, behind which there may be many.
    pub free_failures_address: u32,
    /// The longest wait after a failed login.
    pub longest_wait: Duration,
    /// Failures are forgotten after so long without another.
    pub forget_after: Duration,
    /// Characters that a new password has at least.
    pub shortest_password: u32,
    /// Sessions of one user at once; the one used longest ago makes room.
    pub sessions_per_user: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            free_failures: 3,
            free_failures_address: 20,
            longest_wait: Duration::from_secs(300),
            forget_after: Duration::from_secs(3600),
            shortest_password: 8,
            sessions_per_user: 100,
        }
    }
}
