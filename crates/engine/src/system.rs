//! What loading asks of the operating system, so that it does not show in the latency of what is served.

/// Gives freed memory back to the system. Worth a call after instances were dropped; takes milliseconds where much was freed.
///
/// It speaks to glibc's allocator, which ONNX Runtime uses whatever this program uses for itself. Elsewhere it does nothing.
pub fn release_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code, reason = "glibc's own call is the only way")]
    // SAFETY: malloc_trim takes no pointer, may be called at any time from any thread, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets threads that serve go before the calling one, for good. For threads that load and warm models, and for shadows; on Linux alone.
pub fn lower_priority() {
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code, reason = "std has no priorities")]
    // SAFETY: both calls take and give numbers. PRIO_PROCESS with a thread's own id is that thread alone on Linux, and a failure,
    // which leaves the priority as it was, is harmless.
    unsafe {
        let thread = libc::syscall(libc::SYS_gettid) as libc::id_t;
        libc::setpriority(libc::PRIO_PROCESS, thread, 10);
    }
}

/// Memory that this process has taken, in bytes; `None` where the system does not say.
pub fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn only_the_calling_thread_is_lowered() {
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("procfs");
            let after_name = stat.rsplit(')').next().expect("a name in parentheses").to_owned();
            after_name.split_whitespace().nth(16).expect("the nice value").parse::<i32>().expect("a number")
        };
        let before = nice();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                super::lower_priority();
                assert_eq!(nice(), 10.max(before));
            });
        });
        assert_eq!(nice(), before);
        super::release_memory();
        assert!(super::resident_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
