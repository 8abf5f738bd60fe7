using Fleet.Linux.Interop;

namespace Fleet.Linux.Userfaultfd;

/// <summary>
/// A userfaultfd, own or borrowed from another process (ioctl_userfaultfd(2)). Addresses are those of the process that
/// created it. Methods may be called from several threads at once; disposing closes only this copy of the descriptor.
/// </summary>
public sealed unsafe class UserfaultfdHandle : IDisposable
{
    private readonly FileDescriptor _fd;

    /// <summary>Takes ownership of the descriptor, which must be a userfaultfd.</summary>
    /// <exception cref="ArgumentException">The descriptor is something else; it is left open.</exception>
    public UserfaultfdHandle(FileDescriptor fd)
    {
        if (!IsUserfaultfd(fd))
        {
            throw new ArgumentException("the descriptor is not a userfaultfd", nameof(fd));
        }

        _fd = fd;
    }

    public int Number => _fd.Number;

    /// <summary>
    /// Whether a read returns at once when no event waits, and poll(2) works; the kernel answers POLLERR otherwise. The flag belongs to every
    /// copy of the descriptor: whoever shared it can change it at any time.
    /// </summary>
    public bool IsNonBlocking => (Flags & Constants.O_NONBLOCK) != 0;

    private int Flags => LinuxException.Check(Libc.fcntl(Number, Constants.F_GETFL, 0), "fcntl F_GETFL");

    public static bool IsUserfaultfd(FileDescriptor fd) => fd.LinkTarget == "anon_inode:[userfaultfd]";

    /// <summary>userfaultfd(2), close-on-exec and non-blocking, before the API handshake.</summary>
    /// <param name="userModeOnly">UFFD_USER_MODE_ONLY: works without privilege, but faults from kernel mode are not handled.</param>
    /// <exception cref="LinuxException">EPERM: not root and vm.unprivileged_userfaultfd is 0; ENOSYS: kernel without userfaultfd.</exception>
    public static UserfaultfdHandle Create(bool userModeOnly = false)
    {
        var flags = Constants.O_CLOEXEC | Constants.O_NONBLOCK | (userModeOnly ? UffdConstants.UFFD_USER_MODE_ONLY : 0);
        var fd = LinuxException.Check(Libc.syscall(SyscallNumbers.userfaultfd, flags, 0, 0, 0), "userfaultfd");
        return new UserfaultfdHandle(new FileDescriptor((int)fd));
    }

    /// <summary>
    /// UFFDIO_API on a throw-away descriptor: the features that this kernel has. A failed or unwanted handshake cannot be
    /// taken back, which is why the descriptor that is kept is never probed with.
    /// </summary>
    public static UffdFeatures Probe(bool userModeOnly = false)
    {
        using var probe = Create(userModeOnly);
        return probe.Handshake(UffdFeatures.None);
    }

    /// <summary>UFFDIO_API; once in the life of a userfaultfd.</summary>
    /// <returns>The features that the kernel has (not only those asked for).</returns>
    /// <exception cref="LinuxException">EINVAL: an unknown feature, or the handshake was done before.</exception>
    public UffdFeatures Handshake(UffdFeatures features)
    {
        var api = new UffdioApi { Api = UffdConstants.UFFD_API, Features = (ulong)features };
        Control(UffdConstants.UFFDIO_API, &api, "UFFDIO_API");
        return (UffdFeatures)api.Features;
    }

    /// <summary>The features of the handshake that was done, from /proc/self/fdinfo; null before the handshake.</summary>
    public UffdFeatures? HandshakeFeatures() => UffdInfo.ReadFeatures(Number);

    /// <summary>UFFDIO_REGISTER. Registering a registered range again with the same mode is allowed.</summary>
    /// <exception cref="LinuxException">EBUSY: another userfaultfd holds part of the range; EINVAL: not mapped, or the mode does not fit the backing.</exception>
    public void Register(ulong address, ulong length, UffdRegisterMode mode)
    {
        var register = new UffdioRegister { Range = Range(address, length), Mode = (ulong)mode };
        Control(UffdConstants.UFFDIO_REGISTER, &register, "UFFDIO_REGISTER");
    }

    public void Unregister(ulong address, ulong length)
    {
        var range = Range(address, length);
        Control(UffdConstants.UFFDIO_UNREGISTER, &range, "UFFDIO_UNREGISTER");
    }

    /// <summary>UFFDIO_WAKE: threads blocked on the range retry their access.</summary>
    public void Wake(ulong address, ulong length)
    {
        var range = Range(address, length);
        Control(UffdConstants.UFFDIO_WAKE, &range, "UFFDIO_WAKE");
    }

    /// <summary>
    /// UFFDIO_POISON: every page of the range that is not present gets a poison marker, and waiting threads are woken to
    /// meet it. Stops with EEXIST at a page that is present or has a marker already.
    /// </summary>
    public UffdResult Poison(ulong address, ulong length) =>
        Repeat(UffdConstants.UFFDIO_POISON, address, length);

    /// <summary>UFFDIO_ZEROPAGE: maps zeros. Never on a poisoned page: on shared memory it replaces the marker (FACTS).</summary>
    public UffdResult ZeroPage(ulong address, ulong length) =>
        Repeat(UffdConstants.UFFDIO_ZEROPAGE, address, length);

    /// <summary>UFFDIO_CONTINUE: maps what the page cache holds.</summary>
    public UffdResult Continue(ulong address, ulong length) =>
        Repeat(UffdConstants.UFFDIO_CONTINUE, address, length);

    /// <summary>UFFDIO_COPY from this process's memory. Never on a poisoned page: it replaces the marker.</summary>
    public UffdResult Copy(ulong destination, ReadOnlySpan<byte> source)
    {
        fixed (byte* bytes = source)
        {
            ulong done = 0;
            while (done < (ulong)source.Length)
            {
                var copy = new UffdioCopy { Destination = destination + done, Source = (ulong)bytes + done, Length = (ulong)source.Length - done };
                var error = TryControl(UffdConstants.UFFDIO_COPY, &copy);
                done += copy.Copied > 0 ? (ulong)copy.Copied : 0;
                if (error != Errno.None && !(error == Errno.EAGAIN && copy.Copied > 0))
                {
                    return new UffdResult(done, error);
                }
            }

            return new UffdResult(done, Errno.None);
        }
    }

    /// <summary>Reads the events that wait now, without blocking.</summary>
    /// <returns>How many were read; 0 when none waits.</returns>
    public int ReadEvents(Span<UffdEvent> events)
    {
        const int Most = 16;
        var messages = stackalloc UffdMessage[Most];
        var vector = new IoVector { Base = (nint)messages, Length = (nuint)(Math.Min(events.Length, Most) * sizeof(UffdMessage)) };
        // Another process may have made the descriptor blocking since it was polled.
        var bytes = Libc.preadv2(Number, &vector, 1, -1, Constants.RWF_NOWAIT);
        if (bytes < 0 && LinuxException.LastError is Errno.ENOTSUP)
        {
            // Linux before 6.10. Between this look and the read the flag can still go, for whoever does nothing else.
            bytes = IsNonBlocking ? Libc.read(Number, messages, vector.Length) : throw new LinuxException("read userfaultfd", Errno.ENOTSUP);
        }

        if (bytes < 0)
        {
            var error = LinuxException.LastError;
            return error is Errno.EAGAIN or Errno.EINTR ? 0 : throw new LinuxException("read userfaultfd", error);
        }

        var count = (int)bytes / sizeof(UffdMessage);
        for (var i = 0; i < count; i++)
        {
            events[i] = UffdEvent.From(messages[i]);
        }

        return count;
    }

    /// <summary>For tests: what another holder of the descriptor may do.</summary>
    internal void SetNonBlocking(bool nonBlocking) => LinuxException.Check(
        Libc.fcntl(Number, Constants.F_SETFL, nonBlocking ? Flags | Constants.O_NONBLOCK : Flags & ~Constants.O_NONBLOCK), "fcntl F_SETFL");

    public void Dispose() => _fd.Dispose();

    public FileDescriptor Descriptor => _fd;

    private static UffdioRange Range(ulong address, ulong length) => new() { Start = address, Length = length };

    // The kernel may stop part-way with EAGAIN (a mapping change was under way) and says how far it got. Without
    // progress the caller decides: while a REMOVE event waits unread every attempt gives EAGAIN.
    private UffdResult Repeat(uint request, ulong address, ulong length)
    {
        ulong done = 0;
        while (done < length)
        {
            var argument = new UffdioRangeResult { Range = Range(address + done, length - done) };
            var error = TryControl(request, &argument);
            done += argument.Done > 0 ? (ulong)argument.Done : 0;
            if (error != Errno.None && !(error == Errno.EAGAIN && argument.Done > 0))
            {
                return new UffdResult(done, error);
            }
        }

        return new UffdResult(done, Errno.None);
    }

    private void Control(uint request, void* argument, string call)
    {
        var error = TryControl(request, argument);
        if (error != Errno.None)
        {
            throw new LinuxException(call, error);
        }
    }

    private Errno TryControl(uint request, void* argument) =>
        Libc.ioctl(Number, request, argument) >= 0 ? Errno.None : LinuxException.LastError;
}
