using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using Fleet.Contracts.Agents;
using Fleet.Linux.Processes;

namespace Fleet.HostAgent.Spool;

/// <summary>
/// One append to the spool: all of it counts or none. On disk a line <c>CHECK JSON\n</c>, CHECK being the first 8 hex digits of
/// the JSON's SHA-256, so that a line torn by a crash is told from a whole one.
/// </summary>
/// <param name="SpoolId">Only in the first line of a file.</param>
/// <param name="Next">Sequence that the report after this line gets.</param>
/// <param name="Watermarks">Newest event of each VMM process that is durable with this line.</param>
public sealed record SpoolLine(string? SpoolId, long Next, IReadOnlyList<VmmWatermark> Watermarks, IReadOnlyList<AgentReport> Reports)
{
    private const int CheckLength = 8;

    public byte[] ToBytes()
    {
        var json = JsonSerializer.SerializeToUtf8Bytes(this, SpoolJson.Default.SpoolLine);
        return [.. Encoding.ASCII.GetBytes(Check(json)), (byte)' ', .. json, (byte)'\n'];
    }

    /// <param name="line">Without its newline.</param>
    /// <returns>Null when the line is not whole.</returns>
    public static SpoolLine? Parse(ReadOnlySpan<byte> line)
    {
        if (line.Length <= CheckLength + 1 || Encoding.ASCII.GetString(line[..CheckLength]) != Check(line[(CheckLength + 1)..]))
        {
            return null;
        }

        return JsonSerializer.Deserialize(line[(CheckLength + 1)..], SpoolJson.Default.SpoolLine);
    }

    private static string Check(ReadOnlySpan<byte> json) => Convert.ToHexStringLower(SHA256.HashData(json))[..CheckLength];
}

/// <param name="LastEvent">Newest event sequence of this VMM process that is in the spool, or was.</param>
public sealed record VmmWatermark(ProcessIdentity Vmm, long LastEvent);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(SpoolLine))]
internal sealed partial class SpoolJson : JsonSerializerContext;
