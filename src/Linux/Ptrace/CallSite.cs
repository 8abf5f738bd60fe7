namespace Fleet.Linux.Ptrace;

/// <summary>Where in a process a system call can be made.</summary>
/// <param name="Instruction">Makes the call, and returns if <paramref name="SignalReturn"/> is known.</param>
/// <param name="SignalReturn">Takes a signal frame from the stack; null where the process has no such code.</param>
internal readonly record struct CallSite(ulong Instruction, ulong? SignalReturn)
{
    /// <exception cref="LinuxException">ENOTSUP: the process has no system call instruction; ESRCH: it has ended.</exception>
    internal static CallSite Find(int pid)
    {
        var code = new CodeSearch(pid);
        return code.Find(MachineX64.CallAndReturn) is { } withReturn && code.Find(MachineX64.SignalReturn) is { } signalReturn
            ? new CallSite(withReturn, signalReturn)
            : new CallSite(code.Find(MachineX64.Call) ?? throw new LinuxException("find a system call instruction", Errno.ENOTSUP), null);
    }
}
