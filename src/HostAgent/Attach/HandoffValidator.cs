using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Enforce;
using Fleet.Linux.Sockets;

namespace Fleet.HostAgent.Attach;

/// <summary>What can be said of a handoff message from its text and its peer alone.</summary>
public static class HandoffValidator
{
    private const ulong HostAddressEnd = 1UL << 56;
    private const int HugePageBytes = 2 << 20;
    private const ulong GuestAddressEnd = 1UL << 52;

    /// <exception cref="HandoffRejectedException">With a stable code.</exception>
    public static HandoffMessage Parse(ReadOnlySpan<byte> line)
    {
        try
        {
            return JsonSerializer.Deserialize(line, HandoffJson.Default.HandoffMessage)
                ?? throw new HandoffRejectedException("malformed", "the first line must be a JSON object");
        }
        catch (JsonException)
        {
            throw new HandoffRejectedException("malformed", "the first line is not a handoff message");
        }
    }

    /// <exception cref="HandoffRejectedException">With a stable code.</exception>
    public static void Validate(HandoffMessage message, DesiredVm desired, UnixPeer peer, int descriptors, EnforcementPolicy policy, EnforcementTable table)
    {
        Require(message.Type == HandoffProtocol.HandoffType && message.Version == HandoffProtocol.Version,
            "unsupported-version", $"this agent speaks {HandoffProtocol.HandoffType} version {HandoffProtocol.Version}");
        Require(message.Vm == desired.Vm, "wrong-vm", $"this socket is for VM {desired.Vm}");
        Require(message.VmmPid == peer.Pid, "wrong-pid", $"vmmPid is {message.VmmPid}, but the peer of the socket is {peer.Pid}");
        Require(message.Regions is { Count: > 0 and <= HandoffProtocol.MaximumRegions } && message.Regions.All(region => region is not null),
            "bad-regions", $"1 to {HandoffProtocol.MaximumRegions} regions are needed");
        HandoffIncoming.RequireSound(message.StreamTarget, message.Undelivered, "malformed");
        Require(descriptors >= 1, "no-descriptor", "the userfaultfd must come with the message");

        ulong guestEnd = 0;
        foreach (var region in message.Regions)
        {
            var guest = Check(region, descriptors);
            Require(guest >= guestEnd, "bad-regions", "regions must be sorted by guest physical address and must not overlap");
            guestEnd = guest + (ulong)region.Bytes;
            RequireEnforceable(region, message, policy, table);
        }

        RequireDisjoint(message.Regions.Select(region => (ParseAddress(region.HostVirtualAddress), (ulong)region.Bytes)), "host addresses");
        foreach (var backing in message.Regions.Where(region => region.Memfd is not null).GroupBy(region => region.Memfd))
        {
            RequireDisjoint(backing.Select(region => ((ulong)region.MemfdOffset, (ulong)region.Bytes)), "ranges of one file");
        }

        Require(message.Regions.Select(region => region.Memfd).OfType<int>().Distinct().Count() == descriptors - 1,
            "wrong-descriptor", "a descriptor came with the message that no region names");
        Require(SameLayout(message, desired), "layout-mismatch", "the regions are not the VM's memory as the control plane knows it");
    }

    private static ulong Check(HandoffRegion region, int descriptors)
    {
        var guest = ParseAddress(region.GuestPhysicalAddress);
        var host = ParseAddress(region.HostVirtualAddress);
        Require(region.PageBytes is FrameMath.FrameBytes or HugePageBytes,
            "unsupported-backing", $"guest memory must have pages of {FrameMath.FrameBytes} or {HugePageBytes} bytes; others cannot be enforced by this agent");
        Require(region.Memfd is null == region.MemfdNumber is null && (region.Memfd is not null || region.MemfdOffset == 0),
            "bad-regions", "memfd, memfdNumber and memfdOffset go together");
        Require(region.Memfd is null || (region.Memfd >= 0 && region.Memfd < descriptors - 1), "no-descriptor", $"the memfd with index {region.Memfd} did not come with the message");
        Require(region.Bytes > 0 && region.Bytes % region.PageBytes == 0 && region.MemfdOffset >= 0 && region.MemfdOffset % region.PageBytes == 0
            && guest % (ulong)region.PageBytes == 0 && host % (ulong)region.PageBytes == 0, "bad-regions", "regions must be aligned to their pages");
        Require((ulong)region.Bytes <= GuestAddressEnd && guest <= GuestAddressEnd - (ulong)region.Bytes
            && host <= HostAddressEnd - (ulong)region.Bytes && region.MemfdOffset <= long.MaxValue - region.Bytes,
            "bad-regions", "a region wraps around or lies outside the address space");
        return guest;
    }

    private static void RequireEnforceable(HandoffRegion region, HandoffMessage message, EnforcementPolicy policy, EnforcementTable table)
    {
        var memory = (region.Memfd is null, region.PageBytes == HugePageBytes) switch
        {
            (false, false) => MemoryClass.Memfd,
            (true, false) => MemoryClass.Anonymous,
            (false, true) => MemoryClass.Hugetlb,
            _ => MemoryClass.HugetlbPrivate,
        };
        var whyNot = table.WhyNot(memory, policy);
        Require(whyNot is null, "unsupported-backing", $"this kernel cannot enforce {EnforcementCell.NameOf(memory)} memory with policy {EnforcementCell.NameOf(policy)}: {whyNot}");
        Require(region.Memfd is not null || message.Capabilities?.Contains(VmmCapabilities.Zaps) == true,
            "unsupported-backing", "only the VMM itself can zap private memory: it must obey zap, and declare the capability");
    }

    private static bool SameLayout(HandoffMessage message, DesiredVm desired) =>
        message.Regions.Select(region => (ParseAddress(region.GuestPhysicalAddress), region.Bytes, region.PageBytes))
            .SequenceEqual(desired.Memory
                .Select(region => (Start: ParseAddress(region.GuestPhysicalAddress), region.Bytes, region.PageBytes))
                .OrderBy(region => region.Start));

    private static void RequireDisjoint(IEnumerable<(ulong Start, ulong Bytes)> ranges, string what)
    {
        ulong end = 0;
        foreach (var (start, bytes) in ranges.OrderBy(range => range.Start))
        {
            Require(start >= end, "bad-regions", $"the {what} of two regions overlap");
            end = start + bytes;
        }
    }

    internal static ulong ParseAddress(string address) =>
        HexAddress.TryParse(address, out var value) ? value : throw new HandoffRejectedException("bad-regions", "addresses must be hex strings");

    private static void Require(bool condition, string code, string reason)
    {
        if (!condition)
        {
            throw new HandoffRejectedException(code, reason);
        }
    }
}
