using System.Globalization;
using Serilog;
using Serilog.Events;
using Serilog.Formatting.Compact;

namespace Fleet.Api.Startup;

/// <summary>Serilog as the sink behind ILogger: one JSON object a line on stdout, or a readable console.</summary>
internal static class Logs
{
    public static void Configure(WebApplicationBuilder builder)
    {
        var console = builder.Configuration[$"{FleetOptions.Section}:{nameof(FleetOptions.LogFormat)}"] == "console";
        var levels = builder.Configuration.GetSection("Logging:LogLevel");
        builder.Logging.ClearProviders();
        builder.Services.AddSerilog((_, logger) =>
        {
            logger.MinimumLevel.Is(Level(levels["Default"], LogEventLevel.Information))
                .MinimumLevel.Override("Microsoft.AspNetCore", Level(levels["Microsoft.AspNetCore"], LogEventLevel.Warning))
                .MinimumLevel.Override("Microsoft.EntityFrameworkCore", Level(levels["Microsoft.EntityFrameworkCore"], LogEventLevel.Warning))
                .MinimumLevel.Override("Fleet.Api.Security.BearerHandler", LogEventLevel.Warning)
                .Enrich.FromLogContext();
            foreach (var level in levels.GetChildren().Where(level => level.Key is not "Default"))
            {
                logger.MinimumLevel.Override(level.Key, Level(level.Value, LogEventLevel.Information));
            }

            if (console)
            {
                logger.WriteTo.Console(formatProvider: CultureInfo.InvariantCulture);
            }
            else
            {
                logger.WriteTo.Console(new CompactJsonFormatter());
            }
        });
    }

    private static LogEventLevel Level(string? name, LogEventLevel otherwise) => name switch
    {
        "Trace" => LogEventLevel.Verbose,
        "Debug" => LogEventLevel.Debug,
        "Information" => LogEventLevel.Information,
        "Warning" => LogEventLevel.Warning,
        "Error" => LogEventLevel.Error,
        "Critical" or "None" => LogEventLevel.Fatal,
        _ => otherwise,
    };
}
