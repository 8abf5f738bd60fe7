namespace Fleet.Contracts.Handoff;

/// <summary>
/// The first line a cooperating VMM sends on its VM's Unix stream socket, one JSON object ended by a newline.
/// The descriptors travel by SCM_RIGHTS with its first byte, in this order: the userfaultfd, then the backing files.
/// The VMM keeps its own copies: when the agent dies the userfaultfd must live on (I6).
/// </summary>
/// <param name="Type">Always <see cref="HandoffProtocol.HandoffType"/>.</param>
/// <param name="Version">Always <see cref="HandoffProtocol.Version"/>.</param>
/// <param name="Vm">The VM's id; must be the one the socket is named for.</param>
/// <param name="VmmPid">Process id of the VMM; must be the peer of the socket (SO_PEERCRED).</param>
/// <param name="Userfaultfd">The descriptor's number in the VMM, by which pidfd_getfd finds it again.</param>
/// <param name="Regions">Guest RAM, sorted by guest physical address, not overlapping, at most 64.</param>
/// <param name="LastEvent">Sequence of the newest event line this VMM process has queued; 0 when none.</param>
/// <param name="Capabilities">What the VMM does by itself; see <see cref="VmmCapabilities"/>.</param>
/// <param name="State">
/// With the capability <c>barrier</c>, the guest's state at this moment, one of <see cref="VmmStates"/>; null without it (the guest runs as
/// it likes, and migrations through the gate are refused).
/// </param>
/// <param name="StreamTarget">As in <see cref="VmmState"/>, so that a reconnection tells it again.</param>
/// <param name="Undelivered">As in <see cref="VmmState"/>.</param>
public sealed record HandoffMessage(
    string Type,
    int Version,
    string Vm,
    int VmmPid,
    int Userfaultfd,
    IReadOnlyList<HandoffRegion> Regions,
    long LastEvent,
    IReadOnlyList<string> Capabilities,
    string? State = null,
    string? StreamTarget = null,
    IReadOnlyList<HandoffFrames>? Undelivered = null);

/// <summary>One contiguous piece of guest RAM.</summary>
/// <param name="GuestPhysicalAddress">Where the guest sees it; hex string, aligned to <paramref name="PageBytes"/>.</param>
/// <param name="Bytes">Length in bytes, a multiple of <paramref name="PageBytes"/>.</param>
/// <param name="HostVirtualAddress">Where the VMM process has mapped it; hex string.</param>
/// <param name="PageBytes">Page size of the backing: 4096, or 2097152 for huge pages. (1073741824 is known, and refused.)</param>
/// <param name="Memfd">A memfd, or a file on tmpfs or hugetlbfs, mapped shared: index into the backing descriptors of the message (0 is the first after the userfaultfd); null for anonymous memory.</param>
/// <param name="MemfdNumber">The backing descriptor's number in the VMM; null for anonymous memory.</param>
/// <param name="MemfdOffset">Offset of the region in its backing, in bytes; 0 for anonymous memory.</param>
public sealed record HandoffRegion(
    string GuestPhysicalAddress,
    long Bytes,
    string HostVirtualAddress,
    int PageBytes,
    int? Memfd,
    int? MemfdNumber,
    long MemfdOffset);

/// <summary>What a VMM may declare in <see cref="HandoffMessage.Capabilities"/>.</summary>
public static class VmmCapabilities
{
    /// <summary>Injects a machine check when its guest touches a poisoned page, and reports it.</summary>
    public const string InjectsMachineCheck = "injects-mce";

    /// <summary>
    /// Obeys the barrier: starts held, runs its guest only after the agent's <c>run</c>, stops and stays stopped at <c>hold</c>, and says
    /// truly where its stream ended (<see cref="VmmState"/>).
    /// </summary>
    public const string Barrier = "barrier";

    /// <summary>
    /// Zaps its own memory when the agent says so (<see cref="AgentLine.Zap"/>): needed where guest memory is private, since no other process
    /// can do it.
    /// </summary>
    public const string Zaps = "zap";
}

public static class HandoffProtocol
{
    public const string HandoffType = "handoff";
    public const int Version = 1;

    /// <summary>Longest line either side accepts, in bytes; a longer one closes the socket.</summary>
    public const int MaximumLineBytes = 1024 * 1024;

    /// <summary>Most guest RAM regions in one message.</summary>
    public const int MaximumRegions = 64;

    /// <summary>Most descriptors in one message: the userfaultfd and one backing for each region.</summary>
    public const int MaximumDescriptors = 1 + MaximumRegions;
}
