using System.Net.Sockets;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Reconcile;
using Fleet.Linux;
using Fleet.Tests.Shared;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Tests;

/// <summary>The agent is root, and the control plane names paths: only what it was told to allow, and never through something put in its way.</summary>
public sealed class AllowedPathsTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly DirectoryInfo _allowed;
    private readonly DirectoryInfo _other;
    private readonly AllowedPaths _paths;

    public AllowedPathsTests()
    {
        _allowed = _root.CreateSubdirectory("allowed");
        _other = _root.CreateSubdirectory("other");
        _allowed.CreateSubdirectory("inner");
        Directory.CreateSymbolicLink(In("link"), _other.FullName);
        Directory.CreateSymbolicLink(In("back"), In("inner"));
        Directory.CreateSymbolicLink(Path.Combine(_root.FullName, "alias"), _allowed.FullName);
        File.WriteAllText(Path.Combine(_other.FullName, "secret"), "secret");
        _paths = Of(_allowed.FullName);
    }

    [Theory]
    [InlineData("{allowed}/a.sock", true)]
    [InlineData("{allowed}/inner/a.sock", true)]
    [InlineData("{allowed}//inner/a.sock", true)]
    [InlineData("{other}/a.sock", false)]
    [InlineData("{allowed}-too/a.sock", false)]
    [InlineData("{allowed}/../other/a.sock", false)]
    [InlineData("{allowed}/inner/../a.sock", false)]
    [InlineData("{allowed}/./a.sock", false)]
    [InlineData("{allowed}/link/a.sock", false)]
    [InlineData("{allowed}/back/a.sock", false)]
    [InlineData("{allowed}/missing/a.sock", false)]
    [InlineData("{allowed}/..", false)]
    [InlineData("{allowed}/", false)]
    [InlineData("{allowed}/a\0.sock", false)]
    [InlineData("a.sock", false)]
    [InlineData("", false)]
    public void Path_OutsideOrThroughLinksOrDots_IsRefused(string path, bool allowed)
    {
        Directory.CreateDirectory(_allowed.FullName + "-too");

        Assert.Equal(allowed, _paths.Allows(path.Replace("{allowed}", _allowed.FullName, StringComparison.Ordinal).Replace("{other}", _other.FullName, StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData("{allowed}/missing/a.sock", AllowedPaths.FolderMissing)]
    [InlineData("{allowed}/missing/deeper/a.sock", AllowedPaths.FolderMissing)]
    [InlineData("{allowed}/inner/a.sock", null)]
    [InlineData("{allowed}/link/a.sock", AllowedPaths.NotAllowed)]
    [InlineData("{allowed}/../missing/a.sock", AllowedPaths.NotAllowed)]
    [InlineData("{other}/missing/a.sock", AllowedPaths.NotAllowed)]
    public void Find_NoPlace_SaysWhetherItMayStillCome(string path, string? whyNot)
    {
        // A folder of the setting that is missing itself tells nothing of the others.
        var paths = Of($"{_root.FullName}/nowhere:{_allowed.FullName}");

        using var place = paths.Find(
            path.Replace("{allowed}", _allowed.FullName, StringComparison.Ordinal).Replace("{other}", _other.FullName, StringComparison.Ordinal), out var said);

        Assert.Equal((whyNot, whyNot is null), (said, place is not null));
    }

    [Fact]
    public void Folder_SetByALinkOfTheHost_IsAllowedByBothNames()
    {
        var alias = Path.Combine(_root.FullName, "alias");

        Assert.True(Of(alias).Allows($"{alias}/a.sock"));
        Assert.True(Of(alias).Allows(In("a.sock")));
        Assert.False(_paths.Allows($"{alias}/a.sock"));
        Assert.False(Of(string.Empty).Allows(In("a.sock")));
    }

    /// <summary>Check, swap, use: the swap is too late.</summary>
    [Fact]
    public void Folder_ReplacedByALinkAfterTheCheck_IsStillTheOneThatWasChecked()
    {
        using var place = _paths.Find(In("inner/secret"))!;
        Directory.Move(In("inner"), In("moved"));
        Directory.CreateSymbolicLink(In("inner"), _other.FullName);
        File.WriteAllText(In("moved/secret"), "mine");

        using var file = place.Folder.OpenRegular(place.Name);

        Assert.Equal(In("moved/secret"), file.LinkTarget);
        Assert.Equal(FileKind.Regular, place.Folder.KindOf("secret"));
    }

    [Fact]
    public async Task OpenRegular_AnythingElse_IsRefusedAtOnce()
    {
        await CHelper.RunAsync("mkfifo", In("fifo"));
        await CHelper.RunAsync("mknod", In("null"), "c", "1", "3");
        await CHelper.RunAsync("mknod", In("disk"), "b", "7", "200");
        using var socket = Bind(In("socket"));
        File.CreateSymbolicLink(In("to-secret"), Path.Combine(_other.FullName, "secret"));
        File.WriteAllText(In("file"), "x");
        using var folder = FolderHandle.Open(_allowed.FullName);

        Assert.Equal(
            [FileKind.Fifo, FileKind.CharacterDevice, FileKind.BlockDevice, FileKind.Socket, FileKind.Directory, FileKind.SymbolicLink, FileKind.Regular, FileKind.None],
            new[] { "fifo", "null", "disk", "socket", "inner", "to-secret", "file", "missing" }.Select(folder.KindOf));
        foreach (var name in new[] { "fifo", "null", "disk", "socket", "inner" })
        {
            Assert.Contains("not a regular file", Assert.Throws<InvalidDataException>(() => folder.OpenRegular(name)).Message, StringComparison.Ordinal);
        }

        Assert.Equal(Errno.ELOOP, Assert.Throws<LinuxException>(() => folder.OpenRegular("to-secret")).Errno);
        Assert.Equal(Errno.EXDEV, Assert.Throws<LinuxException>(() => folder.OpenRegular("../other/secret")).Errno);
        Assert.Equal(Errno.EXDEV, Assert.Throws<LinuxException>(() => folder.OpenRegular("/etc/passwd")).Errno);
        using var file = folder.OpenRegular("file");
        Assert.Equal(In("file"), file.LinkTarget);
    }

    /// <summary>A socket that the control plane names must never take the place of something that is there.</summary>
    [Theory]
    [InlineData("file")]
    [InlineData("fifo")]
    [InlineData("folder")]
    [InlineData("link")]
    [InlineData("listener")]
    public async Task Listen_NameThatIsTaken_IsRefusedAndLeavesItAlone(string kind)
    {
        Requires.Userfaultfd();
        var path = In("vm-1.sock");
        using var listener = await OccupyAsync(kind, path);
        using var vmm = new TestVmm();
        using var second = new TestVmm(vm: "vm-2");
        var before = Describe(path);
        await using var agent = await StartAsync(WithSocket(vmm, path), WithSocket(second, In("vm-2.sock")));

        // The other VM's socket is there: this one's was tried.
        await TestAgent.UntilAsync(() => File.Exists(In("vm-2.sock")));
        await agent.DisposeAsync();

        Assert.Equal(before, Describe(path));
    }

    /// <summary>The folder of a VM is often made after the control plane was told of it.</summary>
    [Fact]
    public async Task Listen_FolderMadeAfterTheVm_IsListenedIn()
    {
        Requires.Userfaultfd();
        using var logs = new CapturingLogs();
        using var vmm = new TestVmm();
        await using var agent = await StartAsync(logs, WithSocket(vmm, In("later/vm-1.sock")));
        await TestAgent.UntilAsync(() => logs.Ids.Contains(1231));

        _allowed.CreateSubdirectory("later");

        using var channel = new TestChannel();
        await TestAgent.UntilAsync(() => TryConnect(channel, In("later/vm-1.sock")));
    }

    [Fact]
    public async Task Listen_NameThatIsGivenUp_IsListenedOn()
    {
        Requires.Userfaultfd();
        using var logs = new CapturingLogs();
        using var vmm = new TestVmm();
        await File.WriteAllTextAsync(In("vm-1.sock"), "another program's", TestContext.Current.CancellationToken);
        await using var agent = await StartAsync(logs, WithSocket(vmm, In("vm-1.sock")));
        await TestAgent.UntilAsync(() => logs.Ids.Contains(1232));

        File.Delete(In("vm-1.sock"));

        using var channel = new TestChannel();
        await TestAgent.UntilAsync(() => TryConnect(channel, In("vm-1.sock")));
    }

    [Fact]
    public async Task Qmp_FolderMadeAfterTheVm_IsAttached()
    {
        Requires.Userfaultfd();
        using var vmm = new TestVmm();
        await using var agent = await StartAsync(WithQmp(vmm, In("later/qmp")));
        await TestAgent.UntilAsync(() => ReasonOf(agent, "vm-1") == AllowedPaths.FolderMissing);

        _allowed.CreateSubdirectory("later");
        using var qmp = new FakeQmp(In("later/qmp"), vmm.Memory.Address, vmm.Bytes);

        await TestAgent.UntilAsync(() => agent.Table.Find("vm-1")!.Attachment is not null);
    }

    /// <summary>The folder is allowed, and what its name leads to is not.</summary>
    [Fact]
    [Trait("Invariant", "I7")]
    public async Task Qmp_NameThatIsALink_IsNotFollowed()
    {
        Requires.Userfaultfd();
        using var vmm = new TestVmm();
        using var qmp = new FakeQmp(Path.Combine(_other.FullName, "qmp"), vmm.Memory.Address, vmm.Bytes);
        File.CreateSymbolicLink(In("qmp"), Path.Combine(_other.FullName, "qmp"));
        await using var agent = await StartAsync(WithQmp(vmm, In("qmp")));

        await TestAgent.UntilAsync(() => ReasonOf(agent, "vm-1") is not (null or "not-attached"));

        Assert.Equal(AllowedPaths.NotAllowed, ReasonOf(agent, "vm-1"));
        Assert.Null(agent.Table.Find("vm-1")!.Attachment);
    }

    /// <summary>Two monitors of one QEMU, named by two VMs: a clear of the one would heal the page of the other.</summary>
    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Qmp_OneProcessNamedByTwoVms_IsAttachedAsOneOfThem()
    {
        Requires.Userfaultfd();
        using var vmm = new TestVmm();
        using var first = new FakeQmp(In("first"), vmm.Memory.Address, vmm.Bytes);
        using var second = new FakeQmp(In("second"), vmm.Memory.Address, vmm.Bytes);
        var other = WithQmp(vmm, In("second")) with { Vm = "vm-2", Digest = PoisonDigest.Compute("vm-2", 1, []) };
        await using var agent = await StartAsync(WithQmp(vmm, In("first")), other);

        await TestAgent.UntilAsync(() => new[] { "vm-1", "vm-2" }.All(vm => ReasonOf(agent, vm) is "already-attached" || agent.Table.Find(vm)?.Attachment is not null));

        Assert.Single(new[] { "vm-1", "vm-2" }, vm => ReasonOf(agent, vm) == "already-attached");
        Assert.Single(agent.Table.All, entry => entry.Attachment is not null);
    }

    /// <summary>An id becomes the name of a file and of a socket.</summary>
    [Theory]
    [InlineData("../x")]
    [InlineData("/nowhere/x")]
    [InlineData("")]
    [InlineData(null)]
    [Trait("Invariant", "I7")]
    public async Task Adopt_IdThatIsAPath_IsRefusedAndWritesNothing(string? id)
    {
        Requires.Userfaultfd();
        using var vmm = new TestVmm();
        var good = TestAgent.Vm(vmm, 1);
        var bad = good with { Vm = id!, Digest = PoisonDigest.Compute(id ?? string.Empty, 1, []) };
        await using var agent = await StartAsync();

        Assert.Equal(DesiredVerdict.Invalid, await agent.Desired.AdoptAsync(bad, TestContext.Current.CancellationToken));
        Assert.Equal(DesiredVerdict.Invalid, await agent.Desired.ApplyAsync(new DesiredDelta(id!, 1, 1, 2, string.Empty, [], []), TestContext.Current.CancellationToken));
        Assert.Empty(await agent.Desired.ReplaceAsync([bad, good], TestContext.Current.CancellationToken));

        Assert.Equal(["vm-1"], agent.Table.All.Select(entry => entry.Vm));
        Assert.Equal(["vm-1.json"], Directory.EnumerateFiles(agent.Root, "*.json", SearchOption.AllDirectories).Select(Path.GetFileName));
    }

    [Fact]
    public async Task Listen_SocketThatAKilledAgentLeft_IsReplaced()
    {
        Requires.Userfaultfd();
        var path = In("vm-1.sock");
        Bind(path, listen: false).Dispose();
        using var vmm = new TestVmm();
        await using var agent = await StartAsync(WithSocket(vmm, path));

        using var channel = new TestChannel();
        await TestAgent.UntilAsync(() => TryConnect(channel, path));
        channel.SendHandoff(vmm.Message(), vmm.Userfaultfd.Number, vmm.File.Descriptor.Number);

        Assert.Equal(Contracts.Handoff.AgentLine.Attached, (await channel.ReceiveAsync())?.Type);
    }

    public void Dispose() => _root.Delete(recursive: true);

    private string In(string name) => Path.Combine(_allowed.FullName, name);

    private static AllowedPaths Of(string folders) => new(Microsoft.Extensions.Options.Options.Create(new AgentOptions { AllowedPaths = folders }));

    private static DesiredVm WithSocket(TestVmm vmm, string path) => TestAgent.Vm(vmm, 1) with { Attach = new VmAttach(AttachKinds.Handoff, Socket: path) };

    private static DesiredVm WithQmp(TestVmm vmm, string path) => TestAgent.Vm(vmm, 1) with { Attach = new VmAttach(AttachKinds.Qemu, QmpSocket: path) };

    private static string? ReasonOf(TestAgent agent, string vm) => agent.Table.Find(vm)?.Status?.Reason;

    private Task<TestAgent> StartAsync(params DesiredVm[] desired) => StartAsync(null, desired);

    private Task<TestAgent> StartAsync(CapturingLogs? logs, params DesiredVm[] desired) => TestAgent.StartAsync(
        _root.CreateSubdirectory("state").FullName, new Dictionary<string, string?> { ["Agent:AllowedPaths"] = _allowed.FullName },
        services =>
        {
            if (logs is not null)
            {
                services.AddSingleton<ILoggerFactory>(logs);
            }
        },
        desired);

    private async Task<IDisposable?> OccupyAsync(string kind, string path)
    {
        switch (kind)
        {
            case "file":
                await File.WriteAllTextAsync(path, "a disk image", TestContext.Current.CancellationToken);
                return null;
            case "fifo":
                await CHelper.RunAsync("mkfifo", path);
                return null;
            case "folder":
                Directory.CreateDirectory(path);
                return null;
            case "link":
                File.CreateSymbolicLink(path, Path.Combine(_other.FullName, "secret"));
                return null;
            default:
                return Bind(path);
        }
    }

    private static Socket Bind(string path, bool listen = true)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint(path));
        if (listen)
        {
            socket.Listen();
        }

        return socket;
    }

    private static bool TryConnect(TestChannel channel, string path)
    {
        try
        {
            channel.Connect(path);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    private string Describe(string path)
    {
        using var folder = FolderHandle.Open(_allowed.FullName);
        var kind = folder.KindOf(Path.GetFileName(path));
        return $"{kind} {new FileInfo(path).LinkTarget} {(kind == FileKind.Regular ? File.ReadAllText(path) : string.Empty)}";
    }
}
