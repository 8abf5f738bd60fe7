namespace Fleet.Api.Agents;

/// <summary>Counts that hosts report, kept so small that no sum of them overflows, whatever a host says.</summary>
internal static class Counts
{
    /// <summary>2^40, for one report and for one row: more than a host sees, and 2^23 rows of it can still be summed.</summary>
    public const long Most = 1L << 40;

    public static long Add(long one, long other) => Math.Min(Most, Math.Min(one, Most) + Math.Min(other, Most));
}
