//! Arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    bearer_proxy::cli::main()
}
