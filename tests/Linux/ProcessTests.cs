using System.Diagnostics;
using System.Net.Sockets;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Sockets;

namespace Fleet.Linux.Tests;

public sealed class ProcessTests
{
    [Fact]
    public async Task ProcessIdentity_ProcessEnded_IsNotAliveAndCannotBeOpened()
    {
        using var process = Process.Start(new ProcessStartInfo("sleep", "600"))!;
        var identity = ProcessIdentity.Of(process.Id)!;
        using var pidfd = Pidfd.Open(identity)!;
        Assert.True(identity.IsAlive());
        Assert.False(pidfd.HasExited());

        process.Kill();
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);

        Assert.True(pidfd.HasExited());
        Assert.False(identity.IsAlive());
        Assert.Null(Pidfd.Open(identity));
    }

    [Fact]
    public void ProcessIdentity_SamePidOtherStartTime_IsAnotherProcess()
    {
        var self = ProcessIdentity.Of(Environment.ProcessId)!;

        Assert.True(self.IsAlive());
        Assert.False((self with { StartTime = self.StartTime - 1 }).IsAlive());
        Assert.Null(Pidfd.Open(self with { StartTime = self.StartTime - 1 }));
        Assert.False((self with { BootId = "another boot" }).IsAlive());
    }

    [Fact]
    public void PidfdGetFd_OwnMemfd_IsTheSameFile()
    {
        using var file = MemoryFile.Create("fleet-test", 4096);
        using var pidfd = Pidfd.Open(Environment.ProcessId);
        using var copy = pidfd.GetFd(file.Descriptor.Number);

        Assert.NotEqual(file.Descriptor.Number, copy.Number);
        Assert.Equal(FileDescriptorInfo.Inode(file.Descriptor), FileDescriptorInfo.Inode(copy));
        Assert.True(FileDescriptorInfo.IsMemfd(copy));
    }

    [Fact]
    public void ProcessMaps_OwnMemfd_IsListedWithInodeAndOffset()
    {
        using var file = MemoryFile.Create("fleet-test", 8 * 4096);
        using var mapping = MemoryMapping.MapShared(file.Descriptor, 4 * 4096, 4 * 4096);

        var map = Assert.Single(ProcessMaps.Read(Environment.ProcessId), map => map.Start == mapping.Address);

        Assert.Equal((mapping.Address + (4 * 4096), 4L * 4096, FileDescriptorInfo.Inode(file.Descriptor), true), (map.End, map.Offset, map.Inode, map.IsShared));
        Assert.StartsWith("/memfd:fleet-test", map.Path, StringComparison.Ordinal);
    }

    [Fact]
    public void UnixFdSocket_SendAndReceive_PassesDescriptors()
    {
        var (left, right) = Pair();
        using var _ = left;
        using var __ = right;
        using var file = MemoryFile.Create("fleet-test", 4096);

        Assert.Equal(5, UnixFdSocket.Send(left, "hello"u8, [file.Descriptor.Number, file.Descriptor.Number]));
        var received = new List<FileDescriptor>();
        Span<byte> buffer = stackalloc byte[16];
        Assert.Equal(5, UnixFdSocket.Receive(right, buffer, 4, received));

        Assert.Equal(2, received.Count);
        Assert.All(received, fd => Assert.Equal(FileDescriptorInfo.Inode(file.Descriptor), FileDescriptorInfo.Inode(fd)));
        received.ForEach(fd => fd.Dispose());
        Assert.Equal(-1, UnixFdSocket.Receive(right, buffer, 4, received));
        left.Dispose();
        Assert.Equal(0, UnixFdSocket.Receive(right, buffer, 4, received));
    }

    [Theory]
    [InlineData(3)]
    [InlineData(2)]
    public void UnixFdSocket_MoreDescriptorsThanAllowed_AllAreClosed(int sent)
    {
        var (left, right) = Pair();
        using var _ = left;
        using var __ = right;
        using var file = MemoryFile.Create("fleet-test", 4096);
        var inode = FileDescriptorInfo.Inode(file.Descriptor);
        UnixFdSocket.Send(left, "x"u8, Enumerable.Repeat(file.Descriptor.Number, sent).ToArray());

        Assert.Throws<InvalidDataException>(() => UnixFdSocket.Receive(right, new byte[16], 1, []));

        Assert.Equal(1, CountOpen(inode));
    }

    [Fact]
    public void UnixPeer_SocketPair_IsThisProcess()
    {
        var (left, right) = Pair();
        using var _ = left;
        using var __ = right;

        Assert.Equal(Environment.ProcessId, UnixPeer.Of(left).Pid);
        using var pidfd = UnixPeer.OpenPidfd(left);
        Assert.False(pidfd.HasExited());
    }

    private static int CountOpen(ulong inode) =>
        Directory.EnumerateFiles("/proc/self/fdinfo").Count(path =>
        {
            try
            {
                return File.ReadAllText(path).Contains($"ino:\t{inode}\n", StringComparison.Ordinal);
            }
            catch (IOException)
            {
                return false;
            }
        });

    private static (Socket Left, Socket Right) Pair()
    {
        var path = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen();
        var left = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        left.Connect(new UnixDomainSocketEndPoint(path));
        var right = listener.Accept();
        File.Delete(path);
        return (left, right);
    }
}
