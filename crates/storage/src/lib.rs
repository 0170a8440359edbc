//! Pools and images, as their users name them.
