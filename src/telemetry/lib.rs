//! What the process measures of itself, for people who watch it.
