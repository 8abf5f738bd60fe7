using System.Globalization;
using Fleet.Contracts;
using Fleet.Lab.Tests.Emulation;
using Fleet.Linux.Memory;

namespace Fleet.Lab.Tests.Running;

/// <summary>What a test asks of a host's kernel itself, past agent and VMM.</summary>
internal static class HostKernel
{
    private const string Instance = "/sys/kernel/tracing/instances/lab";

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    /// <summary>Where in the VMM a guest physical address is.</summary>
    public static async Task<ulong> HostAddressAsync(LabVmm vmm, ulong guestPhysicalAddress)
    {
        var region = (await vmm.Guest.StatusAsync(Cancelled)).Regions.Single();
        return (HexAddress.TryParse(region.HostVirtualAddress, out var address) ? address : throw new FormatException(region.HostVirtualAddress)) + guestPhysicalAddress;
    }

    /// <summary>The page's entry in the VMM's page table.</summary>
    public static async Task<PageMapEntry> PageTableEntryAsync(LabVmm vmm, ulong guestPhysicalAddress) =>
        await PageTableEntryAsync(vmm.Process, await HostAddressAsync(vmm, guestPhysicalAddress));

    /// <summary>The entry of an address in a process's page table.</summary>
    public static async Task<PageMapEntry> PageTableEntryAsync(HostProcess process, ulong address)
    {
        var text = await process.Host.Shell.RunAsync(
            $"dd if=/proc/{process.Pid}/pagemap bs=8 count=1 skip={address / 4096} 2>/dev/null | od -An -t x8", Cancelled);
        return new PageMapEntry(ulong.Parse(text.Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture));
    }

    /// <summary>The physical page under a guest's page gets an uncorrectable error, as the kernel's own fault injection makes it.</summary>
    /// <returns>Its frame number on the host.</returns>
    public static async Task<ulong> FailMemoryAsync(LabVmm vmm, ulong guestPhysicalAddress)
    {
        var entry = await PageTableEntryAsync(vmm, guestPhysicalAddress);
        Assert.True(entry.IsPresent, $"0x{guestPhysicalAddress:x} is not in memory: page table entry {entry}");
        var pfn = ulong.Parse(entry.ToString()[2..], NumberStyles.HexNumber, CultureInfo.InvariantCulture) & ((1UL << 55) - 1);
        await vmm.Process.Host.Shell.RunAsync($"echo 0x{pfn:x} > /sys/kernel/debug/hwpoison/corrupt-pfn", Cancelled);
        return pfn;
    }

    /// <summary>The kernel's log names the frame as failed and handled.</summary>
    public static async Task<string> MemoryFailureLineAsync(LabHost host, ulong pfn) =>
        await host.Shell.RunAsync($"dmesg | grep 'Memory failure: 0x{pfn:x}: ' | tail -n 1", Cancelled);

    /// <summary>From now on every SIGBUS on the host, and every fault of a guest at this page, is written down: a witness that has nothing to do with Fleet.</summary>
    public static Task WatchAsync(LabHost host, ulong guestPhysicalAddress) => host.Shell.RunAsync(
        $"mkdir -p {Instance} && cd {Instance} && echo > trace "
        + "&& echo 'sig == 7' > events/signal/signal_generate/filter && echo 1 > events/signal/signal_generate/enable "
        + $"&& echo 'fault_address >= 0x{guestPhysicalAddress:x} && fault_address < 0x{guestPhysicalAddress + 4096:x}' > events/kvm/kvm_page_fault/filter "
        + "&& echo 1 > events/kvm/kvm_page_fault/enable", Cancelled);

    /// <returns>The lines of one kind that were written down.</returns>
    public static async Task<string[]> WatchedAsync(LabHost host, string tracepoint) =>
        (await host.Shell.TryAsync($"grep ' {tracepoint}: ' {Instance}/trace", Cancelled)).Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);

    public static Task EndWatchAsync(LabHost host) => host.Shell.RunAsync($"rmdir {Instance}", Cancelled);
}
