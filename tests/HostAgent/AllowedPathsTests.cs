using System.Net.Sockets;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Options;
using Fleet.Linux;
using Fleet.Tests.Shared;

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

    private Task<TestAgent> StartAsync(params DesiredVm[] desired) => TestAgent.StartAsync(
        _root.CreateSubdirectory("state").FullName, new Dictionary<string, string?> { ["Agent:AllowedPaths"] = _allowed.FullName }, null, desired);

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
