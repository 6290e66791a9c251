//! The `tasnif` command.

fn main() {}
