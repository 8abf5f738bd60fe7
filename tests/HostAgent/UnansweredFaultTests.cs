using System.Globalization;
using Fleet.Contracts;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>Guest memory on a real tmpfs that is full: a first access cannot be answered with a page. It waits, and no other waits with it.</summary>
public sealed class UnansweredFaultTests : IDisposable
{
    private const long Bytes = 1 << 20;

    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");

    public UnansweredFaultTests() => Requires.Userfaultfd();

    [Fact]
    public async Task Handle_EventThatCannotBeAnswered_AnswersTheOthersThatWereReadWithIt()
    {
        await using var disk = await SmallDisk.MountAsync();
        using var vmm = Guest(disk);
        vmm.Fill(20, 7);
        vmm.Memory.Advise(20 * TestVmm.PageBytes, TestVmm.PageBytes, MemoryAdvice.DontNeed);
        disk.Fill();
        using var pidfd = Pidfd.Open(Environment.ProcessId);
        var attachment = new Attachment("vm-1", 1, ProcessIdentity.Of(Environment.ProcessId)!, pidfd, vmm.Userfaultfd, vmm.Userfaultfd.Number,
            new GuestLayout([new GuestRegion(0, Bytes, vmm.Memory.Address, TestVmm.PageBytes, GuestBacking.OfFile(vmm.File, vmm.File.Descriptor.Number, 0))]));
        vmm.Userfaultfd.Register(vmm.Memory.Address, (ulong)Bytes, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
        var tooMany = ReadAside(vmm, 50);
        await UntilPendingAsync(vmm, 1);
        var present = ReadAside(vmm, 20);
        await UntilPendingAsync(vmm, 2);
        var events = new UffdEvent[16];
        Assert.Equal(2, vmm.Userfaultfd.ReadEvents(events));

        var handler = new FaultHandler(attachment, () => { });
        Assert.Equal(Errno.ENOMEM, Assert.Throws<LinuxException>(() => handler.Handle(events.AsSpan(0, 2))).Errno);

        Assert.Equal((Errno.None, (byte)7), await present.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken));
        Assert.False(tooMany.IsCompleted);

        disk.Empty();
        attachment.Unanswered.Wake(vmm.Userfaultfd);
        await UntilPendingAsync(vmm, 1);
        handler.Handle(events.AsSpan(0, vmm.Userfaultfd.ReadEvents(events)));
        Assert.Equal((Errno.None, (byte)0), await tooMany.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task Agent_AccessWithoutRoomForItsPage_IsAnsweredOnceThereIs()
    {
        await using var disk = await SmallDisk.MountAsync();
        using var vmm = Guest(disk);
        await using var agent = await TestAgent.StartAsync(
            _root.FullName, "marker", [("Agent:MapCountLimit", "8")], [TestAgent.Vm(vmm, 1, new PageKey(10, 12))]);
        using var channel = await agent.AttachAsync(vmm);
        disk.Fill();

        var read = ReadAside(vmm, 50);
        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")!.Attachment!.Unanswered.Any);
        Assert.False(read.IsCompleted);
        disk.Empty();

        // Without anybody's help: the agent tries again by itself.
        Assert.Equal((Errno.None, (byte)0), await read.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken));
        Assert.Equal(Errno.EFAULT, vmm.Read(10).Error);
    }

    public void Dispose() => _root.Delete(recursive: true);

    private static TestVmm Guest(SmallDisk disk)
    {
        using var file = new FileStream(Path.Combine(disk.Root, "ram"), FileMode.CreateNew, FileAccess.ReadWrite);
        file.SetLength(Bytes);
        using var self = Pidfd.Open(Environment.ProcessId);
        return new TestVmm(Bytes, file: new MemoryFile(self.GetFd((int)file.SafeFileHandle.DangerousGetHandle())));
    }

    private static Task<(Errno Error, byte Value)> ReadAside(TestVmm vmm, long frame) =>
        Task.Factory.StartNew(() => vmm.Read(frame), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private static Task UntilPendingAsync(TestVmm vmm, long count) => TestAgent.UntilAsync(() =>
        File.ReadLines($"/proc/self/fdinfo/{vmm.Userfaultfd.Number}").Any(line =>
            line.StartsWith("pending:", StringComparison.Ordinal) && long.Parse(line.AsSpan(8).Trim(), CultureInfo.InvariantCulture) == count));
}
