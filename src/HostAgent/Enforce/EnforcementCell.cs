using Fleet.HostAgent.Attach;

namespace Fleet.HostAgent.Enforce;

/// <summary>Kinds of memory that the kernel treats differently when they are zapped and marked.</summary>
public enum MemoryClass
{
    /// <summary>Private anonymous memory.</summary>
    Anonymous,

    /// <summary>Shared memory of a memfd or a file on tmpfs.</summary>
    Memfd,

    /// <summary>Shared huge pages of 2 MiB: a memfd or a file on hugetlbfs.</summary>
    Hugetlb,

    /// <summary>Private huge pages of 2 MiB, without a file.</summary>
    HugetlbPrivate,
}

/// <summary>One way to enforce a page: what the memory is, how it is zapped, and what is left in its place.</summary>
public readonly record struct EnforcementCell(MemoryClass Memory, ZapMethod Zap, EnforcementPolicy Policy)
{
    /// <summary>Every cell, row by row; the methods in the order in which the engine prefers them.</summary>
    public static IReadOnlyList<EnforcementCell> All { get; } =
        [
            .. from memory in Enum.GetValues<MemoryClass>()
               from zap in Enum.GetValues<ZapMethod>()
               from policy in Enum.GetValues<EnforcementPolicy>()
               select new EnforcementCell(memory, zap, policy),
        ];

    /// <summary>Stable, such as <c>enforce.memfd.punch-hole.marker</c>.</summary>
    public string Name => $"enforce.{NameOf(Memory)}.{NameOf(Zap)}.{NameOf(Policy)}";

    /// <summary>Who carries the zap out: the agent from outside, or the VMM's own process (<see cref="IZapper"/>); a dash where nobody can.</summary>
    public string By => Impossible is not null ? "-" : Zap == ZapMethod.PunchHole ? "agent" : "vmm";

    /// <summary>Why no kernel has this cell; null where a kernel may.</summary>
    public string? Impossible => this switch
    {
        { Zap: ZapMethod.PunchHole, Memory: MemoryClass.Anonymous or MemoryClass.HugetlbPrivate } => "private memory has no file to punch a hole into",
        { Zap: ZapMethod.Remap, Policy: EnforcementPolicy.Trap } =>
            "a new mapping is not registered: until it is, an access returns data (a marker comes along, a trap does not)",
        _ => null,
    };

    /// <summary>Whether markers and holes in this memory survive the whole region being registered and collapsed into huge pages (FACTS 3).</summary>
    public bool AllowsWholeRegion => Memory != MemoryClass.Memfd || Zap == ZapMethod.PunchHole;

    public static string NameOf(MemoryClass memory) => memory switch
    {
        MemoryClass.Anonymous => "anonymous",
        MemoryClass.Memfd => "memfd",
        MemoryClass.Hugetlb => "hugetlb",
        _ => "hugetlb-private",
    };

    public static string NameOf(ZapMethod zap) => zap switch
    {
        ZapMethod.PunchHole => "punch-hole",
        ZapMethod.DontNeed => "dont-need",
        _ => "remap",
    };

    public static string NameOf(EnforcementPolicy policy) => policy == EnforcementPolicy.Marker ? "marker" : "trap";

    public static MemoryClass ClassOf(GuestBacking backing) => backing.Kind switch
    {
        BackingKind.Anonymous => MemoryClass.Anonymous,
        BackingKind.Hugetlb => backing.File is null ? MemoryClass.HugetlbPrivate : MemoryClass.Hugetlb,
        _ => MemoryClass.Memfd,
    };
}

/// <param name="WhyNot">Why this kernel cannot do it; null when it did it.</param>
public sealed record CellState(EnforcementCell Cell, string? WhyNot)
{
    public bool IsAble => WhyNot is null;
}
