using System.Globalization;

namespace Fleet.Api.Lists;

/// <summary>Unix ms in the store, RFC 3339 in UTC on the wire.</summary>
public static class Times
{
    public static DateTimeOffset ToTime(this long unixMilliseconds) => DateTimeOffset.FromUnixTimeMilliseconds(unixMilliseconds);

    public static bool TryParse(string? text, out DateTimeOffset time)
    {
        time = default;
        return text is { Length: >= 20 and <= 40 }
            && text[10] is 'T' or 't'
            && DateTimeOffset.TryParse(text, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out time);
    }
}
