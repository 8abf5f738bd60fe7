using Fleet.Contracts;
using Fleet.Linux.Memory;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Enforce;

/// <summary>One page of memory of a kind, with a userfaultfd of its own.</summary>
internal sealed class ProbeMemory : IDisposable
{
    private const int HugePageBytes = 2 << 20;

    private readonly MemoryFile? _file;
    private readonly MemoryMapping _mapping;
    private readonly UffdRegisterMode _mode;

    public ProbeMemory(MemoryClass memory)
    {
        var huge = memory is MemoryClass.Hugetlb or MemoryClass.HugetlbPrivate;
        Bytes = huge ? HugePageBytes : FrameMath.FrameBytes;
        _file = memory is MemoryClass.Memfd or MemoryClass.Hugetlb ? MemoryFile.Create("fleet-probe", Bytes, huge) : null;
        _mode = _file is null ? UffdRegisterMode.Missing : UffdRegisterMode.Missing | UffdRegisterMode.Minor;
        try
        {
            _mapping = _file is null ? MemoryMapping.MapAnonymous(Bytes, huge) : MemoryMapping.MapShared(_file.Descriptor, 0, Bytes);
            Userfaultfd = UserfaultfdHandle.Create();
            Userfaultfd.Handshake(UffdFeatures.Poison | (huge
                ? UffdFeatures.MissingHugetlbfs | (_file is null ? UffdFeatures.None : UffdFeatures.MinorHugetlbfs)
                : _file is null ? UffdFeatures.None : UffdFeatures.MissingShmem | UffdFeatures.MinorShmem));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public UserfaultfdHandle Userfaultfd { get; } = null!;

    public long Bytes { get; }

    public ulong Address => _mapping.Address;

    public void Register() => Register(Address);

    public void Unregister() => Userfaultfd.Unregister(Address, (ulong)Bytes);

    public UffdResult Poison() => Userfaultfd.Poison(Address, (ulong)Bytes);

    public void Zap(ZapMethod method)
    {
        switch (method)
        {
            case ZapMethod.PunchHole:
                _file!.PunchHole(0, Bytes);
                break;
            case ZapMethod.DontNeed:
                _mapping.Advise(0, Bytes, MemoryAdvice.DontNeed);
                break;
            default:
                _mapping.Replace(0, Bytes, fresh =>
                {
                    Register(fresh);
                    Userfaultfd.Poison(fresh, (ulong)Bytes);
                });
                Register();
                break;
        }
    }

    public bool IsMarked()
    {
        using var map = PageMap.Open(Environment.ProcessId);
        return Bytes == HugePageBytes ? PageScan.FindNotPresent(map, Address, Address + (ulong)Bytes).Count > 0 : map.Read(Address).IsPoisonMarker;
    }

    public bool IsHole()
    {
        using var map = PageMap.Open(Environment.ProcessId);
        return map.Read(Address).IsEmpty;
    }

    public void Dispose()
    {
        Userfaultfd?.Dispose();
        _mapping?.Dispose();
        _file?.Dispose();
    }

    private void Register(ulong address) => Userfaultfd.Register(address, (ulong)Bytes, _mode);
}
