using System.Buffers.Binary;
using System.Text;

namespace Fleet.Linux.Hardware;

/// <summary>A populated memory slot as the firmware describes it (SMBIOS 3.7, 7.18, type 17). Null where it says nothing.</summary>
/// <param name="Locator">The slot, such as <c>P1-DIMMA3</c>.</param>
/// <param name="Bank">The bank it is in, such as <c>P0_Node0_Channel0_Dimm0</c>.</param>
public sealed record SmbiosModule(string? Locator, string? Bank, string? Manufacturer, string? Serial, string? PartNumber);

/// <summary>The firmware's table of memory modules, <c>/sys/firmware/dmi</c>. Needs root: serial numbers are not for everybody.</summary>
public static class SmbiosModules
{
    public const string DefaultFolder = "/sys/firmware/dmi";
    private const byte MemoryDevice = 17;
    private const byte EndOfTable = 127;
    private const int HeaderBytes = 4;

    /// <summary>What boards put where nothing is known; compared in lower case.</summary>
    private static readonly string[] Nothing = ["", "not specified", "unknown", "no dimm", "none", "n/a", "to be filled by o.e.m.", "undefined"];

    /// <summary>From <c>tables/DMI</c>, or where that is missing from <c>entries/17-*/raw</c>; empty where the firmware has neither.</summary>
    public static IReadOnlyList<SmbiosModule> Read(string folder = DefaultFolder)
    {
        try
        {
            var table = Path.Combine(folder, "tables", "DMI");
            if (File.Exists(table))
            {
                return Parse(File.ReadAllBytes(table));
            }

            var entries = Path.Combine(folder, "entries");
            return Directory.Exists(entries)
                ? [.. Directory.EnumerateDirectories(entries, "17-*").Order(StringComparer.Ordinal).SelectMany(entry => Parse(File.ReadAllBytes(Path.Combine(entry, "raw"))))]
                : [];
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    /// <summary>The populated slots in a run of SMBIOS structures. A structure that is cut off ends it.</summary>
    public static IReadOnlyList<SmbiosModule> Parse(ReadOnlySpan<byte> table)
    {
        var modules = new List<SmbiosModule>();
        while (table.Length >= HeaderBytes && table[0] != EndOfTable && table[1] >= HeaderBytes && table[1] <= table.Length)
        {
            var formatted = table[..table[1]];
            // Behind it the structure's strings, each ended by a zero, the last by another; where there are none, two zeros.
            var strings = table[table[1]..];
            var end = strings.IndexOf("\0\0"u8);
            if (end < 0)
            {
                break;
            }

            if (formatted[0] == MemoryDevice && IsPopulated(formatted))
            {
                var texts = Encoding.Latin1.GetString(strings[..end]).Split('\0');
                modules.Add(new SmbiosModule(
                    Text(formatted, 0x10, texts), Text(formatted, 0x11, texts), Text(formatted, 0x17, texts), Text(formatted, 0x18, texts), Text(formatted, 0x1a, texts)));
            }

            table = strings[(end + 2)..];
        }

        return modules;
    }

    // A size of 0: the slot is empty.
    private static bool IsPopulated(ReadOnlySpan<byte> formatted) => formatted.Length >= 0x0e && BinaryPrimitives.ReadUInt16LittleEndian(formatted[0x0c..]) != 0;

    private static string? Text(ReadOnlySpan<byte> formatted, int at, string[] texts)
    {
        if (at >= formatted.Length || formatted[at] == 0 || formatted[at] > texts.Length)
        {
            return null;
        }

        var text = texts[formatted[at] - 1].Trim();
        return Array.IndexOf(Nothing, text.ToLowerInvariant()) >= 0 ? null : text;
    }
}
