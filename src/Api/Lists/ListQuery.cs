using System.ComponentModel;
using System.Globalization;
using Fleet.Api.Problems;
using Microsoft.AspNetCore.Mvc;

namespace Fleet.Api.Lists;

/// <summary>What every list takes. Kept as text, so that all errors can be told at once.</summary>
public sealed record ListQuery(
    [property: FromQuery(Name = "after"), Description("Cursor: `next` of the page before.")] string? After,
    [property: FromQuery(Name = "limit"), Description("Most items to answer with, 1 to 1000; 100 when absent.")] string? Limit)
{
    public const int MaximumLimit = 1000;
    private const int DefaultLimit = 100;

    public int ReadLimit(ValidationErrors errors)
    {
        if (Limit is null)
        {
            return DefaultLimit;
        }

        if (int.TryParse(Limit, NumberStyles.None, CultureInfo.InvariantCulture, out var limit) && limit is >= 1 and <= MaximumLimit)
        {
            return limit;
        }

        errors.Add("limit", $"A whole number from 1 to {MaximumLimit}.");
        return DefaultLimit;
    }
}
