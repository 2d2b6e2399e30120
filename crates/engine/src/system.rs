//! What loading asks of the operating system, so that it does not show in the latency of what is served.

#[cfg(target_os = "linux")]
use std::time::Duration;

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

/// Lets threads that serve go before the calling one, for good. For threads that load and warm models, for shadows,
/// and for what is told; on Linux alone.
///
/// A lower priority alone gives it less time, and not later: since Linux 6.6 a thread that wakes waits until the one that runs has had its
/// slice, which is milliseconds. Since 6.12 a thread may ask for a slice of its own, and who has a shorter one does not wait for it.
pub fn lower_priority() {
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code, reason = "std has no priorities")]
    // SAFETY: the calls take numbers, and one of them a valid `sched_attr` with its size, which lives through it. 0 and a thread's own id are
    // the calling thread alone on Linux, and a failure, which leaves the priority as it was, is harmless.
    unsafe {
        const NICE: i32 = 10;
        /// Much longer than that of others, which is 3 ms at the most; kernels take up to 100 ms.
        const SLICE: Duration = Duration::from_millis(10);
        let mut attributes: libc::sched_attr = std::mem::zeroed();
        attributes.size = size_of_val(&attributes) as u32;
        attributes.sched_policy = libc::SCHED_OTHER as u32;
        attributes.sched_nice = NICE;
        attributes.sched_runtime = SLICE.as_nanos() as u64;
        if libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) != 0 {
            let thread = libc::syscall(libc::SYS_gettid) as libc::id_t;
            libc::setpriority(libc::PRIO_PROCESS, thread, NICE);
        }
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
