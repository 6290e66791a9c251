//! The `tasnif` command: parses the arguments and calls [`tasnif::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    tasnif::cli::main()
}
