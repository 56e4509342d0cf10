//! What every engine must do, as a suite that each one runs.
