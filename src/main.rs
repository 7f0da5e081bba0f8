fn main() -> std::process::ExitCode {
    stead::cli::main()
}
