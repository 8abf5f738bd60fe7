using System.Globalization;

namespace Fleet.Contracts;

/// <summary>64-bit addresses on the wire: hex strings with the prefix <c>0x</c>, because JSON numbers lose bits above 2^53.</summary>
public static class HexAddress
{
    public static string Format(ulong address) => string.Create(CultureInfo.InvariantCulture, $"0x{address:x}");

    /// <summary>Accepts <c>0x</c> and 1 to 16 hex digits; nothing else (no sign, no blanks, no decimal).</summary>
    public static bool TryParse(string? text, out ulong address)
    {
        address = 0;
        return text is { Length: >= 3 and <= 18 }
            && text[0] == '0' && text[1] is 'x' or 'X'
            && ulong.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out address);
    }
}
