using System.Runtime.InteropServices;

namespace Fleet.Linux;

/// <summary>A system call failed. The message names the call and the error number; it is for logs, never for API clients.</summary>
public sealed class LinuxException : Exception
{
    public LinuxException(string call, Errno errno)
        : base($"{call}: {errno} ({Marshal.GetPInvokeErrorMessage((int)errno)})")
    {
        Call = call;
        Errno = errno;
    }

    /// <summary>The call as the manual names it, such as <c>UFFDIO_REGISTER</c> or <c>pidfd_getfd</c>.</summary>
    public string Call { get; }

    public Errno Errno { get; }

    internal static LinuxException FromLastError(string call) => new(call, LastError);

    internal static Errno LastError => (Errno)Marshal.GetLastPInvokeError();

    internal static int Check(int result, string call) => result >= 0 ? result : throw FromLastError(call);

    internal static nint Check(nint result, string call) => result >= 0 ? result : throw FromLastError(call);
}
