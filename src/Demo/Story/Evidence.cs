using System.Globalization;
using Fleet.Contracts;
using Fleet.Linux.Memory;
using Fleet.TinyVmm.Control;

namespace Fleet.Demo.Story;

/// <summary>What the guest and the kernel say, put into words.</summary>
internal static class Evidence
{
    /// <summary>Whether the guest's own machine-check handler ran for this page: MCG_STATUS with MCIP, RIPV, EIPV, and the bank's address.</summary>
    public static bool IsMachineCheck(CommandAnswer answer, long frame) =>
        answer.Outcome == CommandAnswer.MachineCheck
        && answer.McgStatus == "0x7"
        && HexAddress.TryParse(answer.Address, out var address) && FrameMath.FrameOf(address) == frame
        && answer.Value is null && answer.Checksum is null;

    public static string Describe(CommandAnswer answer) => answer.Outcome switch
    {
        CommandAnswer.MachineCheck => $"guest's handler: MCG_STATUS {answer.McgStatus}, MCi_STATUS {answer.Status}, MCi_ADDR {answer.Address}",
        CommandAnswer.Data when answer.Value is not null => $"guest read {answer.Value}",
        CommandAnswer.Data => $"guest's checksum {answer.Checksum}",
        _ => $"guest: {answer.Outcome}",
    };

    /// <summary>The entry of the VMM's page table for a guest frame, from /proc/PID/pagemap.</summary>
    public static PageMapEntry PageTableEntry(StatusAnswer vmm, long frame)
    {
        var address = FrameMath.AddressOf(frame);
        foreach (var region in vmm.Regions)
        {
            if (HexAddress.TryParse(region.GuestPhysicalAddress, out var start) && HexAddress.TryParse(region.HostVirtualAddress, out var host)
                && address >= start && address - start < (ulong)region.Bytes)
            {
                using var map = PageMap.Open(vmm.Pid);
                return map.Read(host + (address - start));
            }
        }

        throw new ArgumentOutOfRangeException(nameof(frame), frame, "not in the VM's memory");
    }

    public static string Hex(uint value) => string.Create(CultureInfo.InvariantCulture, $"0x{value:x}");
}
