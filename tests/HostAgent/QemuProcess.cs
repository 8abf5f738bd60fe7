using System.Diagnostics;
using System.Globalization;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Attach.Qemu;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.Tests;

/// <summary>
/// Stock QEMU without a guest's system: machine, firmware and RAM, not started (<c>-S</c>). It has one QMP socket for the agent and one for the
/// test. A grandchild: .NET takes ptrace stops of a child of its own for its end.
/// </summary>
internal sealed class QemuProcess : IDisposable
{
    public const int PageBytes = 4096;
    public const string Memfd = "memory-backend-memfd,share=on";
    public const string Anonymous = "memory-backend-ram";

    private readonly Process _shell;
    private readonly Pidfd _pidfd;

    private QemuProcess(Process shell, int pid, string agentSocket, string testSocket, IReadOnlyList<MemoryRegion> memory)
    {
        (_shell, Pid, AgentSocket, TestSocket, Memory) = (shell, pid, agentSocket, testSocket, memory);
        _pidfd = Pidfd.Open(pid);
    }

    public int Pid { get; }

    public string AgentSocket { get; }

    public string TestSocket { get; }

    public IReadOnlyList<MemoryRegion> Memory { get; }

    public bool HasEnded => _pidfd.HasExited();

    /// <summary>Numbers of all userfaultfds that the process has.</summary>
    public IReadOnlyList<int> Userfaultfds =>
        [.. QemuDescriptors.Of(Pid).Where(descriptor => descriptor.Link == "anon_inode:[userfaultfd]").Select(descriptor => descriptor.Number)];

    /// <param name="root">Folder for the sockets; of mode 0777 where it runs as another user.</param>
    /// <param name="backend">Memory backend without id and size.</param>
    /// <param name="machine">With <c>memory-backend=mem</c> added.</param>
    /// <param name="user">Runs as nobody (uid 65534), without capabilities.</param>
    public static async Task<QemuProcess> StartAsync(
        string root, string backend = Memfd, string machine = "q35", string size = "64M", bool sandbox = false, bool user = false, IReadOnlyList<MemoryRegion>? memory = null)
    {
        var id = Path.Combine(root, Guid.NewGuid().ToString("N")[..8]);
        string[] command =
        [
            .. user ? ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : Array.Empty<string>(),
            "/usr/bin/qemu-system-x86_64", "-accel", "tcg", "-machine", $"{machine},memory-backend=mem", "-object", $"{backend},id=mem,size={size}", "-m", size,
            "-nodefaults", "-no-user-config", "-display", "none", "-S", "-pidfile", $"{id}.pid",
            "-qmp", $"unix:{id}.agent,server=on,wait=off", "-qmp", $"unix:{id}.test,server=on,wait=off",
            .. sandbox ? ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"] : Array.Empty<string>(),
        ];
        var shell = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", "\"$@\" & wait $!", "sh", .. command]) { RedirectStandardError = true })!;
        var errors = shell.StandardError.ReadToEndAsync();
        await TestAgent.UntilAsync(() => shell.HasExited || (Listens($"{id}.agent") && Listens($"{id}.test") && File.Exists($"{id}.pid") && File.ReadAllText($"{id}.pid").EndsWith('\n')));
        if (shell.HasExited)
        {
            Assert.Fail($"QEMU did not start: {await errors}");
        }

        return new QemuProcess(
            shell, int.Parse(File.ReadAllText($"{id}.pid"), CultureInfo.InvariantCulture), $"{id}.agent", $"{id}.test",
            memory ?? [new MemoryRegion("0x0", 64 << 20, PageBytes)]);
    }

    // The name is there before anybody can connect to it.
    private static bool Listens(string path) =>
        File.ReadLines("/proc/net/unix").Any(line => line.EndsWith(" " + path, StringComparison.Ordinal) && line.Contains(" 00010000 ", StringComparison.Ordinal));

    public DesiredVm Vm(long generation, params PageKey[] pages) => new(
        "vm-1", "host-a", Memory, new VmAttach(AttachKinds.Qemu, QmpSocket: AgentSocket), 1, generation, 1, PoisonDigest.Compute("vm-1", 1, pages), pages);

    /// <summary>What the human monitor answers; null when QEMU ended instead.</summary>
    public async Task<string?> MonitorAsync(string command)
    {
        using var client = await QmpClient.ConnectAsync(TestSocket, TimeProvider.System, TestContext.Current.CancellationToken);
        var reading = client.RunAsync(_ => { }, TestContext.Current.CancellationToken);
        await client.ExecuteAsync("qmp_capabilities", null, TestContext.Current.CancellationToken);
        try
        {
            return (await client.HumanAsync(command, TestContext.Current.CancellationToken)).Trim();
        }
        catch (IOException)
        {
            await TestAgent.UntilAsync(() => HasEnded);
            return null;
        }
    }

    public static ulong Address(TestAgent agent, long frame) =>
        agent.Table.Find("vm-1")!.Attachment!.Layout.Locate(new Enforce.FrameRange(frame, frame + 1)).Single().HostVirtualAddress;

    public void Fill(ulong address, byte value)
    {
        var bytes = new byte[PageBytes];
        Array.Fill(bytes, value);
        Assert.Equal(Errno.None, ProcessMemory.Write(Pid, address, bytes));
    }

    public (Errno Error, byte Value) Read(ulong address)
    {
        Span<byte> buffer = stackalloc byte[1];
        var error = ProcessMemory.Read(Pid, address + 100, buffer);
        return (error, buffer[0]);
    }

    public bool HasMarker(ulong address)
    {
        using var map = PageMap.Open(Pid);
        return map.Read(address).IsPoisonMarker;
    }

    public void Kill()
    {
        _pidfd.SendSignal(9);
        _shell.WaitForExit();
    }

    public void Dispose()
    {
        if (!HasEnded)
        {
            Kill();
        }

        _pidfd.Dispose();
        _shell.Dispose();
    }
}
