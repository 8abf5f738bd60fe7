using System.Security.Cryptography;
using System.Text.Json;

namespace Fleet.Contracts.Agents;

/// <summary>
/// The digest by which an agent says, when it opens its stream, what it holds: SHA-256, in lower-case hex, over the JSON of each
/// <see cref="DesiredVm"/> and a line feed, ascending by VM id. It covers everything that a snapshot carries, with the store epoch in
/// the high bits of its numbers. Two programs that write a VM differently (another version knows another member) never agree: then there is a snapshot.
/// </summary>
public static class DesiredDigest
{
    public static string Compute(IEnumerable<DesiredVm> vms)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var vm in vms.OrderBy(vm => vm.Vm, StringComparer.Ordinal))
        {
            hash.AppendData(JsonSerializer.SerializeToUtf8Bytes(vm, FleetJson.Default.DesiredVm));
            hash.AppendData("\n"u8);
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    public static bool IsValid(string text) => text.Length == 2 * SHA256.HashSizeInBytes && text.All(char.IsAsciiHexDigitLower);
}
