#![no_main]

// A Machinefile is read from a folder, with what it includes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("memory");
    let file = folder.path().join("Machinefile");
    std::fs::write(&file, data).expect("memory");
    if let Err(errors) = stead::machinefile::load(&file, &|_| None) {
        errors.render(miette::GraphicalTheme::none(), 100);
    }
    // What is formatted once stays as it is.
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(once) = stead::machinefile::format(text, "fuzz")
    {
        let twice = stead::machinefile::format(&once, "fuzz").expect("formatted");
        assert_eq!(once, twice);
    }
});
