//! Whole numbers divided as NumPy and other processors divide them: the smallest by -1 is the smallest again, and nothing is left over.
//! x86 alone raises a signal there, which ends the process, and ONNX Runtime looks only for zeros before it divides.

/// Lets the process live through such divisions, whatever thread they run on. Every other cause of the signal ends it, as before.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(unsafe_code, reason = "std has no signals")]
pub(super) fn wrap_around() {
    let handler: extern "C" fn(_, _, _) = step_over;
    // SAFETY: all-zero bits are a valid `sigaction`, and both calls get pointers to it alone. The handler has the signature that
    // SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGFPE, &raw const action, std::ptr::null_mut());
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(super) fn wrap_around() {}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(unsafe_code, reason = "what raised a signal is known by pointers")]
extern "C" fn step_over(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    use libc::{REG_RAX, REG_RDX, REG_RIP};
    /// Linux's `asm-generic/siginfo.h`: what x86 calls a divide error.
    const FPE_INTDIV: libc::c_int = 1;
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel gives a handler with SA_SIGINFO two valid pointers, to nobody else while it runs. Where the signal is that of a
    // division, the instruction lies at RIP, and no byte behind its end is read. Nothing here allocates, locks or panics.
    unsafe {
        let registers = &mut (*context).uc_mcontext.gregs;
        let code = registers[REG_RIP as usize] as *const u8;
        let (low, high) = (registers[REG_RAX as usize], registers[REG_RDX as usize]);
        if (*info).si_code == FPE_INTDIV
            && let Some(division) = Division::read((0..).map(|at| *code.add(at)))
            && let Some(quotient) = division.overflowed(low, high)
        {
            registers[REG_RAX as usize] = quotient;
            registers[REG_RDX as usize] = 0;
            registers[REG_RIP as usize] += division.length;
        } else {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
}

/// An `idiv` of 32 or 64 bits (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, 2.1 and "IDIV"). Shorter
/// numbers are divided as such of 32 bits, which they cannot overflow.
#[cfg_attr(not(all(target_os = "linux", target_arch = "x86_64")), allow(dead_code, reason = "other processors raise no signal"))]
#[derive(Debug, PartialEq)]
struct Division {
    wide: bool,
    /// In bytes.
    length: i64,
}

#[cfg_attr(not(all(target_os = "linux", target_arch = "x86_64")), allow(dead_code, reason = "other processors raise no signal"))]
impl Division {
    /// The instruction that `code` begins with, where it is one.
    fn read(mut code: impl Iterator<Item = u8>) -> Option<Self> {
        let mut length = 0;
        let mut next = || {
            length += 1;
            code.next()
        };
        let first = next()?;
        let rex = first & 0xf0 == 0x40;
        let opcode = if rex { next()? } else { first };
        if opcode != 0xf7 {
            return None;
        }
        let modrm = next()?;
        let (mode, extension, operand) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
        if extension != 7 {
            return None;
        }
        let base = if mode != 3 && operand == 4 { next()? & 7 } else { operand };
        let displacement = match (mode, base) {
            (0, 5) | (2, _) => 4,
            (1, _) => 1,
            _ => 0,
        };
        Some(Self { wide: rex && first & 8 != 0, length: length + displacement })
    }

    /// What the low register has to hold after it, if what it divides is the smallest number, in two registers. The divisor is -1
    /// then, or zero, which the runtime refuses before.
    fn overflowed(&self, low: i64, high: i64) -> Option<i64> {
        let smallest = if self.wide { (low, high) == (i64::MIN, -1) } else { (low as i32, high as i32) == (i32::MIN, -1) };
        // Writing 32 bits of a register clears the others.
        smallest.then_some(if self.wide { low } else { 0x8000_0000 })
    }
}

#[cfg(test)]
mod tests {
    use super::Division;

    /// Bytes as GNU's assembler writes them.
    #[test]
    fn the_length_of_a_division_is_known_in_every_form_of_its_operand() {
        for (code, wide) in [
            (&[0xf7, 0xf9][..], false),                                // idiv ecx
            (&[0x41, 0xf7, 0xf8], false),                              // idiv r8d
            (&[0x48, 0xf7, 0xf9], true),                               // idiv rcx
            (&[0x49, 0xf7, 0xfc], true),                               // idiv r12
            (&[0x48, 0xf7, 0x3e], true),                               // idiv qword [rsi]
            (&[0x48, 0xf7, 0x7e, 0x08], true),                         // idiv qword [rsi+8]
            (&[0x49, 0xf7, 0x3c, 0x24], true),                         // idiv qword [r12]
            (&[0x49, 0xf7, 0x7d, 0x00], true),                         // idiv qword [r13]
            (&[0x4a, 0xf7, 0x3c, 0xc6], true),                         // idiv qword [rsi+r8*8]
            (&[0x48, 0xf7, 0x7c, 0xce, 0x08], true),                   // idiv qword [rsi+rcx*8+8]
            (&[0xf7, 0xbe, 0x00, 0x01, 0x00, 0x00], false),            // idiv dword [rsi+256]
            (&[0xf7, 0xbc, 0x8e, 0x00, 0x01, 0x00, 0x00], false),      // idiv dword [rsi+rcx*4+256]
            (&[0xf7, 0x3d, 0x00, 0x01, 0x00, 0x00], false),            // idiv dword [rip+256]
            (&[0x48, 0xf7, 0x3c, 0x25, 0x00, 0x01, 0x00, 0x00], true), // idiv qword [256]
        ] {
            assert_eq!(Division::read(code.iter().copied()), Some(Division { wide, length: code.len() as i64 }), "{code:02x?}");
            let cut = Division::read(code.iter().copied().take(1));
            assert_eq!(cut, None, "nothing is made up where code ends: {code:02x?}");
        }
        // div ecx, imul ecx, idiv cl, idiv cx, div of floats.
        for code in [&[0xf7, 0xf1][..], &[0xf7, 0xe9], &[0xf6, 0xf9], &[0x66, 0xf7, 0xf9], &[0xf3, 0x0f, 0x5e, 0xc1]] {
            assert_eq!(Division::read(code.iter().copied()), None, "{code:02x?}");
        }
    }

    #[test]
    fn only_the_smallest_number_overflows_and_gives_itself() {
        let of = |wide| Division { wide, length: 2 };
        assert_eq!(of(true).overflowed(i64::MIN, -1), Some(i64::MIN));
        assert_eq!(of(false).overflowed(0x8000_0000, 0xffff_ffff), Some(0x8000_0000));
        assert_eq!(of(false).overflowed(-0x8000_0000, -1), Some(0x8000_0000), "what stood above 32 bits is not looked at");
        for (low, high) in [(0, 0), (1, 0), (-1, -1), (i64::MIN + 1, -1), (i64::MIN, 0)] {
            assert_eq!(of(true).overflowed(low, high), None, "{low} {high}");
            assert_eq!(of(false).overflowed(low, high), None, "{low} {high}");
        }
    }
}
