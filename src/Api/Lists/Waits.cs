using Fleet.Api.Problems;
using Fleet.Contracts;

namespace Fleet.Api.Lists;

/// <summary>The parameter <c>?wait=</c> of long polls.</summary>
public static class Waits
{
    private static readonly TimeSpan Maximum = TimeSpan.FromMinutes(1);

    /// <summary>Zero when absent.</summary>
    public static TimeSpan Read(string? wait, ValidationErrors errors)
    {
        if (wait is null)
        {
            return TimeSpan.Zero;
        }

        if (DurationText.TryParse(wait, out var duration) && duration <= Maximum)
        {
            return duration;
        }

        errors.Add("wait", "A duration such as 30s, at most 60s.");
        return TimeSpan.Zero;
    }
}
