using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace Fleet.Contracts;

/// <summary>
/// The digest by which the control plane and an agent compare a VM's poisoned set: SHA-256 over
/// (vm id, memory instance, sorted (frame u64 LE, shift u8)), in lower-case hex. It is taken over the desired set that the
/// agent confirms covered, never over the wider kernel state (a 4 KiB page armed as a huge page counts as 4 KiB).
/// </summary>
/// <remarks>
/// Bytes hashed: the id's length as u16 LE, the id in UTF-8, the memory instance as u64 LE, then 9 bytes for each page,
/// ascending by frame. The length prefix keeps two ids from running into each other.
/// </remarks>
public static class PoisonDigest
{
    public static string Compute(string vm, long memoryInstance, IEnumerable<PageKey> pages)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Span<byte> number = stackalloc byte[9];

        var id = Encoding.UTF8.GetBytes(vm);
        BinaryPrimitives.WriteUInt16LittleEndian(number, checked((ushort)id.Length));
        hash.AppendData(number[..2]);
        hash.AppendData(id);
        BinaryPrimitives.WriteUInt64LittleEndian(number, (ulong)memoryInstance);
        hash.AppendData(number[..8]);

        foreach (var page in pages.OrderBy(page => page.Frame))
        {
            BinaryPrimitives.WriteUInt64LittleEndian(number, (ulong)page.Frame);
            number[8] = (byte)page.Shift;
            hash.AppendData(number);
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>Digest of a whole snapshot: SHA-256 over the sorted lines <c>vm generation placementEpoch digest\n</c>.</summary>
    public static string ComputeSnapshot(IEnumerable<(string Vm, long Generation, long PlacementEpoch, string Digest)> vms)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var vm in vms.OrderBy(vm => vm.Vm, StringComparer.Ordinal))
        {
            hash.AppendData(Encoding.UTF8.GetBytes(
                FormattableString.Invariant($"{vm.Vm} {vm.Generation} {vm.PlacementEpoch} {vm.Digest}\n")));
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
