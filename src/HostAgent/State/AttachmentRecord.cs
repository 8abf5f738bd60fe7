using System.Text.Json.Serialization;
using Fleet.HostAgent.Enforce;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.State;

/// <summary>What a new agent process needs to take an attached VMM over again.</summary>
/// <param name="Userfaultfd">The userfaultfd's number in the VMM.</param>
/// <param name="Trapped">Frames that may carry a marker: written before the first of them is armed.</param>
public sealed record AttachmentRecord(
    string Vm,
    long MemoryInstance,
    ProcessIdentity Vmm,
    int Userfaultfd,
    IReadOnlyList<RegionRecord> Regions,
    IReadOnlyList<FrameRange> Trapped);

/// <param name="BackingNumber">The memfd's number in the VMM.</param>
/// <param name="BackingInode">The memfd's inode: tells it from a file that took its number later.</param>
public sealed record RegionRecord(
    ulong GuestPhysicalAddress,
    long Bytes,
    ulong HostVirtualAddress,
    int PageBytes,
    int BackingNumber,
    ulong BackingInode,
    long BackingOffset);

[JsonSerializable(typeof(AttachmentRecord))]
internal sealed partial class StateJson : JsonSerializerContext;
