//! What measurements share: programs that are started for them, requests, figures that are kept.

pub mod daemon;
pub mod load;
pub mod results;
pub mod wrk;
