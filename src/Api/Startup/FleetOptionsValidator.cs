using Microsoft.Extensions.Options;

namespace Fleet.Api.Startup;

public sealed class FleetOptionsValidator : IValidateOptions<FleetOptions>
{
    public ValidateOptionsResult Validate(string? name, FleetOptions options)
    {
        var errors = new List<string>();
        if (string.IsNullOrWhiteSpace(options.DataFolder))
        {
            errors.Add("Fleet:DataFolder is empty.");
        }

        if (options.LogFormat is not ("json" or "console"))
        {
            errors.Add("Fleet:LogFormat must be json or console.");
        }

        if (options.HeartbeatInterval < TimeSpan.FromSeconds(1) || options.HeartbeatInterval > TimeSpan.FromMinutes(5))
        {
            errors.Add("Fleet:HeartbeatInterval must be from 1 second to 5 minutes.");
        }

        if (options.HeartbeatsPerSecond < 1)
        {
            errors.Add("Fleet:HeartbeatsPerSecond must be 1 or more.");
        }

        if (options.BookmarkInterval < TimeSpan.FromSeconds(1) || options.BookmarkInterval > TimeSpan.FromMinutes(5))
        {
            errors.Add("Fleet:BookmarkInterval must be from 1 second to 5 minutes.");
        }

        if (options.StreamLifetime < TimeSpan.FromSeconds(10) || options.StreamLifetime > TimeSpan.FromDays(1))
        {
            errors.Add("Fleet:StreamLifetime must be from 10 seconds to 1 day.");
        }

        if (options.WriteDeadline < TimeSpan.FromSeconds(1) || options.WriteDeadline > TimeSpan.FromMinutes(10))
        {
            errors.Add("Fleet:WriteDeadline must be from 1 second to 10 minutes.");
        }

        if (options.ReconnectsPerSecond < 1 || options.SnapshotsAtOnce < 1 || options.SnapshotsWaiting < 1)
        {
            errors.Add("Fleet:ReconnectsPerSecond, Fleet:SnapshotsAtOnce and Fleet:SnapshotsWaiting must be 1 or more.");
        }

        if (options.StartGrace < TimeSpan.Zero || options.StartGrace > TimeSpan.FromHours(1))
        {
            errors.Add("Fleet:StartGrace must be from 0 to 1 hour.");
        }

        if (options.ExpiryBrakeShare is not (> 0 and <= 1))
        {
            errors.Add("Fleet:ExpiryBrakeShare must be above 0, and at most 1.");
        }

        if (options.ExpiryBrakeLimit < TimeSpan.Zero || options.ExpiryBrakeLimit > TimeSpan.FromHours(1))
        {
            errors.Add("Fleet:ExpiryBrakeLimit must be from 0 to 1 hour.");
        }

        if (options.MigrationLifetime < TimeSpan.FromMinutes(1) || options.MigrationLifetime > TimeSpan.FromDays(7))
        {
            errors.Add("Fleet:MigrationLifetime must be from 1 minute to 7 days.");
        }

        if (options.SwitchoverLifetime < TimeSpan.FromSeconds(1) || options.SwitchoverLifetime > TimeSpan.FromHours(1))
        {
            errors.Add("Fleet:SwitchoverLifetime must be from 1 second to 1 hour.");
        }

        if (options.ChangeRetention < TimeSpan.FromHours(1) || options.HitRetention < TimeSpan.FromHours(1) || options.FaultRetention < TimeSpan.FromHours(1))
        {
            errors.Add("Fleet:ChangeRetention, Fleet:HitRetention and Fleet:FaultRetention must be 1 hour or more.");
        }

        if (options.ChangesKept < 1000 || options.HitsKept < 1000 || options.FaultsKept < 1000)
        {
            errors.Add("Fleet:ChangesKept, Fleet:HitsKept and Fleet:FaultsKept must be 1000 or more.");
        }

        if (options.RetentionInterval < TimeSpan.FromSeconds(10) || options.RetentionInterval > TimeSpan.FromDays(1))
        {
            errors.Add("Fleet:RetentionInterval must be from 10 seconds to 1 day.");
        }

        errors.AddRange(options.Jwt.Errors());
        errors.AddRange(options.RateLimits.Errors());
        return errors.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(errors);
    }
}
