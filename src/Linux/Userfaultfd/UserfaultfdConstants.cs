namespace Fleet.Linux.Userfaultfd;

/// <summary>UFFD_FEATURE_* bits of struct uffdio_api (&lt;linux/userfaultfd.h&gt;, Linux 6.18).</summary>
[Flags]
public enum UffdFeatures : ulong
{
    None = 0,
    PageFaultFlagWp = 1 << 0,
    EventFork = 1 << 1,
    EventRemap = 1 << 2,
    EventRemove = 1 << 3,
    MissingHugetlbfs = 1 << 4,
    MissingShmem = 1 << 5,
    EventUnmap = 1 << 6,
    SigBus = 1 << 7,
    ThreadId = 1 << 8,
    MinorHugetlbfs = 1 << 9,
    MinorShmem = 1 << 10,
    ExactAddress = 1 << 11,
    WpHugetlbfsShmem = 1 << 12,
    WpUnpopulated = 1 << 13,

    /// <summary>UFFDIO_POISON; Linux 6.6.</summary>
    Poison = 1 << 14,
    WpAsync = 1 << 15,
    Move = 1 << 16,
}

/// <summary>UFFDIO_REGISTER_MODE_*.</summary>
[Flags]
public enum UffdRegisterMode : ulong
{
    Missing = 1,
    WriteProtect = 2,
    Minor = 4,
}

/// <summary>ioctl numbers and flags. The installed headers may be older than UFFDIO_POISON; its number is then taken from Linux 6.6's.</summary>
internal static class UffdConstants
{
    internal const ulong UFFD_API = 0xAA;
    internal const int UFFD_USER_MODE_ONLY = 1;

    internal const uint UFFDIO_API = 0xc018aa3f;
    internal const uint UFFDIO_REGISTER = 0xc020aa00;
    internal const uint UFFDIO_UNREGISTER = 0x8010aa01;
    internal const uint UFFDIO_WAKE = 0x8010aa02;
    internal const uint UFFDIO_COPY = 0xc028aa03;
    internal const uint UFFDIO_ZEROPAGE = 0xc020aa04;
    internal const uint UFFDIO_CONTINUE = 0xc020aa07;
    internal const uint UFFDIO_POISON = 0xc020aa08;

    internal const byte UFFD_EVENT_FORK = 0x13;
    internal const byte UFFD_EVENT_REMAP = 0x14;
    internal const byte UFFD_EVENT_REMOVE = 0x15;
    internal const byte UFFD_EVENT_UNMAP = 0x16;
    internal const byte UFFD_EVENT_PAGEFAULT = 0x12;

    internal const ulong UFFD_PAGEFAULT_FLAG_WRITE = 1;
    internal const ulong UFFD_PAGEFAULT_FLAG_MINOR = 4;
}
