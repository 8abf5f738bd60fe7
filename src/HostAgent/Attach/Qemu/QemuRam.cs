using System.Globalization;
using System.Text.RegularExpressions;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>A stretch of guest physical memory that is RAM, as <c>info mtree -f</c> shows it.</summary>
/// <param name="Name">The memory region's name, such as <c>pc.ram</c> or the id of the memory backend.</param>
/// <param name="HostVirtualAddress">Where QEMU has its first byte, by <c>gpa2hva</c>.</param>
public sealed record QemuRamPiece(ulong Start, ulong End, string Name, ulong HostVirtualAddress);

/// <summary>All guest memory of a QEMU process as it tells it.</summary>
/// <param name="Bytes">RAM in bytes, by query-memory-size-summary.</param>
public sealed partial record QemuRam(long Bytes, IReadOnlyList<QemuRamPiece> Pieces)
{
    private const ulong PageBytes = 4096;

    /// <summary>Asks QEMU.</summary>
    /// <exception cref="QemuRejectedException"><c>qmp-failed</c>, or <c>layout-mismatch</c>: a stretch of RAM is not contiguous in QEMU.</exception>
    public static async Task<QemuRam> QueryAsync(QmpClient client, CancellationToken cancellationToken)
    {
        var size = System.Text.Json.JsonSerializer.Deserialize(
            await client.ExecuteAsync("query-memory-size-summary", null, cancellationToken), QmpJson.Default.QmpMemorySize)!;
        var pieces = new List<QemuRamPiece>();
        foreach (var piece in ParseTree(await client.HumanAsync("info mtree -f", cancellationToken)))
        {
            var first = await AddressAsync(client, piece.Start, piece.Name, cancellationToken);
            var last = await AddressAsync(client, piece.End - PageBytes, piece.Name, cancellationToken);
            if (last - first != piece.End - PageBytes - piece.Start)
            {
                throw new QemuRejectedException("layout-mismatch", $"QEMU has the RAM from 0x{piece.Start:x} to 0x{piece.End:x} in several pieces");
            }

            pieces.Add(piece with { HostVirtualAddress = first });
        }

        return new QemuRam(size.Base + size.Plugged, pieces);
    }

    /// <summary>The RAM of the flat view that the vCPUs use (address space <c>memory</c>), whole pages only; host addresses still unknown.</summary>
    public static IReadOnlyList<QemuRamPiece> ParseTree(string tree)
    {
        var pieces = new List<QemuRamPiece>();
        var wanted = false;
        foreach (var line in tree.Split('\n').Select(line => line.TrimEnd('\r')))
        {
            if (line.StartsWith("FlatView", StringComparison.Ordinal))
            {
                wanted = false;
            }
            else if (line.StartsWith(" AS \"", StringComparison.Ordinal))
            {
                wanted |= line.StartsWith(" AS \"memory\",", StringComparison.Ordinal);
            }
            else if (wanted && TreeLine().Match(line) is { Success: true } match)
            {
                var start = Hex(match.Groups["start"].ValueSpan);
                var end = Hex(match.Groups["end"].ValueSpan) + 1;
                if (start % PageBytes == 0 && end % PageBytes == 0)
                {
                    pieces.Add(new QemuRamPiece(start, end, match.Groups["name"].Value, 0));
                }
            }
        }

        return pieces;
    }

    /// <summary>The host virtual address in the answer of <c>gpa2hva</c>; null where the address is no RAM.</summary>
    public static (string Name, ulong Address)? ParseHostAddress(string answer) =>
        HostAddress().Match(answer) is { Success: true } match ? (match.Groups["name"].Value, Hex(match.Groups["address"].ValueSpan)) : null;

    private static async Task<ulong> AddressAsync(QmpClient client, ulong guest, string name, CancellationToken cancellationToken)
    {
        var answer = await client.HumanAsync(FormattableString.Invariant($"gpa2hva 0x{guest:x}"), cancellationToken);
        return ParseHostAddress(answer) is var (found, address) && found == name
            ? address
            : throw new QemuRejectedException("qmp-failed", $"gpa2hva 0x{guest:x}: {answer.Trim()}");
    }

    private static ulong Hex(ReadOnlySpan<char> text) => ulong.Parse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);

    // "  0000000000100000-0000000003ffffff (prio 0, ram): mem @0000000000100000"; KVM adds its own mark at the end. ROM and I/O are left out.
    [GeneratedRegex(@"^\s+(?<start>[0-9a-f]{16})-(?<end>[0-9a-f]{16}) \(prio -?\d+, (nv-)?ram\): (?<name>\S+)")]
    private static partial Regex TreeLine();

    [GeneratedRegex(@"^Host virtual address for 0x[0-9a-f]+ \((?<name>[^)]*)\) is 0x(?<address>[0-9a-f]+)")]
    private static partial Regex HostAddress();
}
