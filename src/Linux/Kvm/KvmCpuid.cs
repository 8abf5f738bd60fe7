using System.Buffers.Binary;

namespace Fleet.Linux.Kvm;

/// <summary><c>struct kvm_cpuid2</c>: a count, 4 bytes of padding, then entries; passed from KVM to a vCPU as it is.</summary>
public sealed class KvmCpuid
{
    public const int HeaderBytes = 8;

    /// <summary>Size of <c>struct kvm_cpuid_entry2</c>.</summary>
    public const int EntryBytes = 40;

    internal KvmCpuid(int entries)
    {
        Bytes = new byte[HeaderBytes + (entries * EntryBytes)];
        BinaryPrimitives.WriteInt32LittleEndian(Bytes, entries);
    }

    internal byte[] Bytes { get; }

    public int Count => BinaryPrimitives.ReadInt32LittleEndian(Bytes);
}
