//! What agents in other processes use: `spear.v1.AgentService` on top of [`api::Control`].

pub mod grpc;

#[cfg(test)]
mod tests;
