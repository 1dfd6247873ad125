//! Spoor: a store and query backend for distributed traces. All of it is in `crates/`.

fn main() -> std::process::ExitCode {
    spoor_server::main()
}
