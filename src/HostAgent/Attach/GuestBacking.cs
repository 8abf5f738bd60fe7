using System.Text.Json.Serialization;
using Fleet.Contracts;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Attach;

/// <summary>What guest RAM is made of; decides how it is registered, zapped, marked and verified (FACTS 3).</summary>
[JsonConverter(typeof(JsonStringEnumConverter<BackingKind>))]
public enum BackingKind
{
    /// <summary>A memfd with 4 KiB pages, mapped shared.</summary>
    Memfd,

    /// <summary>A file on tmpfs, mapped shared. To the kernel the same as a memfd.</summary>
    Tmpfs,

    /// <summary>Private anonymous memory with 4 KiB pages, transparent huge pages or not.</summary>
    Anonymous,

    /// <summary>Huge pages of 2 MiB: a memfd or a file on hugetlbfs, mapped shared, or private anonymous memory without a file.</summary>
    Hugetlb,
}

/// <summary>What a region of guest RAM is made of, with a copy of the VMM's descriptor where it has one.</summary>
public sealed class GuestBacking : IDisposable
{
    private GuestBacking(BackingKind kind, MemoryFile? file, int? number, long offset) => (Kind, File, Number, Offset) = (kind, file, number, offset);

    public BackingKind Kind { get; }

    /// <summary>The file behind it; null for anonymous memory.</summary>
    public MemoryFile? File { get; }

    /// <summary>The descriptor's number in the VMM; null without a file.</summary>
    public int? Number { get; }

    /// <summary>Where the region starts in the file, in bytes; 0 without one.</summary>
    public long Offset { get; }

    /// <summary>Tells the file from all others, also from one that took its number later; null without a file.</summary>
    public FileIdentity? Identity => File is null ? null : FileDescriptorInfo.Identity(File.Descriptor);

    /// <summary>
    /// A hole in a shared file can be filled past the VMM's page tables: then only MINOR makes its access an event. Private memory
    /// knows MISSING alone.
    /// </summary>
    public UffdRegisterMode RegisterMode => File is null ? UffdRegisterMode.Missing : UffdRegisterMode.Missing | UffdRegisterMode.Minor;

    /// <summary>The features that the VMM's userfaultfd must have for it.</summary>
    public UffdFeatures Features => UffdFeatures.Poison | Kind switch
    {
        BackingKind.Memfd or BackingKind.Tmpfs => UffdFeatures.MissingShmem | UffdFeatures.MinorShmem,
        BackingKind.Hugetlb => UffdFeatures.MissingHugetlbfs | (File is null ? UffdFeatures.None : UffdFeatures.MinorHugetlbfs),
        _ => UffdFeatures.None,
    };

    /// <summary>Memory of a file, of the kind that the kernel says it is.</summary>
    /// <param name="file">Owned by the backing from here on.</param>
    /// <exception cref="ArgumentException">It is no file in memory; it is left open.</exception>
    public static GuestBacking OfFile(MemoryFile file, int number, long offset)
    {
        var kind = FileDescriptorInfo.MemoryKind(file.Descriptor).Kind switch
        {
            MemoryFileKind.Shmem => FileDescriptorInfo.IsMemfd(file.Descriptor) ? BackingKind.Memfd : BackingKind.Tmpfs,
            MemoryFileKind.Hugetlbfs => BackingKind.Hugetlb,
            _ => throw new ArgumentException("the descriptor is neither a memfd nor a file on tmpfs or hugetlbfs", nameof(file)),
        };
        return new GuestBacking(kind, file, number, offset);
    }

    /// <summary>Private anonymous memory.</summary>
    /// <param name="pageBytes">4096, or 2 MiB where it is made of huge pages (MAP_HUGETLB).</param>
    public static GuestBacking Anonymous(int pageBytes = FrameMath.FrameBytes) =>
        new(pageBytes == FrameMath.FrameBytes ? BackingKind.Anonymous : BackingKind.Hugetlb, null, null, 0);

    public void Dispose() => File?.Dispose();
}
