using System.Globalization;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Migration;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Tests;

/// <summary>A VMM in this process, on the real KVM or the software vCPU, with its control socket in a folder of its own.</summary>
internal sealed class RunningVmm : IAsyncDisposable
{
    public const ulong HighMemory = 0x1_0000_0000;
    private const ulong PageBytes = MemoryLayout.PageBytes;

    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("fleet-vmm-");
    private readonly ControlServer _server;

    private RunningVmm(string memory, TimeSpan? commandTimeout, Func<MachineOptions, MachineOptions>? configure)
    {
        Assert.True(MemoryLayout.TryParse(memory, out var layout, out var error), error);
        var options = new MachineOptions("vm-1", layout, HandoffPath);
        Machine = new Machine(configure?.Invoke(options) ?? options, TimeProvider.System, _ => { });
        _server = new ControlServer(ControlPath, Machine, TimeProvider.System, commandTimeout);
    }

    public Machine Machine { get; }

    public TinyVmmClient Client { get; private set; } = null!;

    public string ControlPath => Path.Combine(_folder.FullName, "control.sock");

    /// <summary>Where the VMM looks for its agent; nobody is there unless a test makes one.</summary>
    public string HandoffPath => Path.Combine(_folder.FullName, "vm-1.sock");

    public static Task<RunningVmm> StartAsync(string memory = "16M", TimeSpan? commandTimeout = null) =>
        StartWithAsync(KvmVirtualCpu.KindName, memory, commandTimeout: commandTimeout);

    public static async Task<RunningVmm> StartWithAsync(
        string vcpu, string memory = "16M", Func<MachineOptions, MachineOptions>? configure = null, TimeSpan? commandTimeout = null)
    {
        if (vcpu == KvmVirtualCpu.KindName)
        {
            Requires.Kvm();
        }
        else
        {
            Requires.Userfaultfd();
        }

        var vmm = new RunningVmm(memory, commandTimeout, options => (configure?.Invoke(options) ?? options) with { Vcpu = vcpu });
        vmm.Client = await TinyVmmClient.ConnectAsync(vmm.ControlPath, TestContext.Current.CancellationToken);
        return vmm;
    }

    /// <summary>A VMM that waits for RAM on a port of its own.</summary>
    public static Task<RunningVmm> StartIncomingAsync(string vcpu, string memory = "16M", Func<MachineOptions, MachineOptions>? configure = null) =>
        StartWithAsync(vcpu, memory, options =>
        {
            Assert.True(MigrationEndpoint.TryParse("tcp:127.0.0.1:0", out var any));
            return (configure?.Invoke(options) ?? options) with { Incoming = any };
        });

    /// <summary>The whole page as this process sees it; null when it cannot be read.</summary>
    public byte[]? PageOf(ulong page)
    {
        var bytes = new byte[PageBytes];
        return Machine.Memory.TryRead(page, bytes) == Errno.None ? bytes : null;
    }

    /// <summary>Nothing lies in the page table at this page: nobody has touched it since it was discarded.</summary>
    public bool IsHole(ulong page)
    {
        using var pages = PageMap.Open(Environment.ProcessId);
        return pages.Read(AddressOf(page)).IsEmpty;
    }

    /// <summary>Takes the page away and traps it, as an agent does: registered alone, punched, not yet poisoned.</summary>
    public void Trap(ulong page)
    {
        Machine.Userfaultfd.Register(AddressOf(page), PageBytes, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
        Machine.Memory.Find(page)!.Discard(page, PageBytes);
    }

    public void Poison(ulong page)
    {
        Trap(page);
        PoisonTrapped(page);
    }

    public void PoisonTrapped(ulong page) =>
        Assert.True(Machine.Userfaultfd.Poison(AddressOf(page), PageBytes).Succeeded);

    public ulong AddressOf(ulong guestPhysicalAddress)
    {
        var region = Machine.Memory.Find(guestPhysicalAddress)!;
        return region.HostVirtualAddress + (guestPhysicalAddress - region.Range.GuestPhysicalAddress);
    }

    public async ValueTask DisposeAsync()
    {
        await Client.DisposeAsync();
        await _server.DisposeAsync();
        await Machine.DisposeAsync();
        _folder.Delete(recursive: true);
    }

    public static uint Dword(string? hex) => uint.Parse(hex.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
}
