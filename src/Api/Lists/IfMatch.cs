using System.Globalization;

namespace Fleet.Api.Lists;

/// <summary>The If-Match header (RFC 9110, 13.1.1) over numeric versions; absent matches everything.</summary>
public sealed class IfMatch
{
    public static readonly IfMatch Absent = new(null);
    private readonly string? _header;

    private IfMatch(string? header) => _header = header;

    public static IfMatch Of(HttpRequest request) =>
        request.Headers.IfMatch is { Count: > 0 } values ? new IfMatch(values.ToString()) : Absent;

    public static string ETagOf(long version) => string.Create(CultureInfo.InvariantCulture, $"\"{version}\"");

    /// <param name="version">The present version; null when there is no such resource.</param>
    public bool Matches(long? version)
    {
        if (_header is null)
        {
            return true;
        }

        if (version is null)
        {
            return false;
        }

        var tag = ETagOf(version.Value);
        return _header.Split(',', StringSplitOptions.TrimEntries).Any(candidate => candidate == "*" || candidate == tag);
    }
}
