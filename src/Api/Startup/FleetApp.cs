using System.Reflection;
using Fleet.Api.Agents;
using Fleet.Api.Changes;
using Fleet.Api.Faults;
using Fleet.Api.Health;
using Fleet.Api.Hits;
using Fleet.Api.Hosts;
using Fleet.Api.Json;
using Fleet.Api.Metrics;
using Fleet.Api.Migrations;
using Fleet.Api.OpenApi;
using Fleet.Api.Pages;
using Fleet.Api.Problems;
using Fleet.Api.Restore;
using Fleet.Api.Security;
using Fleet.Api.Vms;
using Fleet.Data;
using Fleet.Data.Storage;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Options;

namespace Fleet.Api.Startup;

/// <summary>Puts the application together. Does no file or database work: that starts with the host.</summary>
public static class FleetApp
{
    private const string DocumentTool = "GetDocument.Insider";

    public static WebApplication Create(string[] args, Action<WebApplicationBuilder>? configure = null)
    {
        var builder = WebApplication.CreateBuilder(new WebApplicationOptions { Args = args, ContentRootPath = AppContext.BaseDirectory });
        ListenAddresses.Configure(builder);
        builder.WebHost.ConfigureKestrel(RequestLimits.Configure);
        Logs.Configure(builder);
        AddServices(builder.Services, builder.Configuration);
        configure?.Invoke(builder);

        if (Assembly.GetEntryAssembly()?.GetName().Name == DocumentTool)
        {
            // It starts the host, with a server that does not listen, only to read the document.
            builder.Services.RemoveAll<IHostedService>();
        }

        var app = builder.Build();
        Use(app);
        Map(app);
        return app;
    }

    private static void AddServices(IServiceCollection services, ConfigurationManager configuration)
    {
        services.AddSingleton(TimeProvider.System);
        services.AddSingleton<IValidateOptions<FleetOptions>, FleetOptionsValidator>();
        services.AddOptions<FleetOptions>()
            .Bind(configuration.GetSection(FleetOptions.Section))
            .PostConfigure(options => options.DataFolder = Path.GetFullPath(options.DataFolder, AppContext.BaseDirectory))
            .ValidateOnStart();
        services.AddOptions<StoreOptions>()
            .Configure<IOptions<FleetOptions>>((store, fleet) => store.Folder = fleet.Value.DataFolder);
        services.Configure<HostOptions>(options => options.ShutdownTimeout = TimeSpan.FromSeconds(8));
        services.Configure<RouteHandlerOptions>(options => options.ThrowOnBadRequest = true);
        services.ConfigureHttpJsonOptions(StrictJson.Configure);
        services.AddProblemDetails();
        services.AddExceptionHandler<FleetExceptionHandler>();
        services.AddFleetOpenApi();

        // Hosted services start in this order and stop in the reverse one: plain http is refused before anything is created.
        services.AddHostedService<PlainHttpGuard>();
        services.AddFleetStore();
        services.AddFleetRestore();
        services.AddFleetAgents();
        services.AddFleetMigrations();
        services.AddFleetChanges();
        services.AddFleetMetrics();
        services.AddFleetSecurity();
        services.AddSingleton<IConfigureOptions<KestrelServerOptions>, ClientCertificates>();
        services.AddSingleton<IConfigureOptions<SocketTransportOptions>, DeadPeers>();
        services.AddSingleton<VmReader>();
        services.AddSingleton<FaultReader>();
        services.AddSingleton<HostReader>();
        services.AddSingleton<PageReader>();
        services.AddSingleton<PageHistory>();
    }

    private static void Use(WebApplication app)
    {
        app.UseExceptionHandler();
        app.UseStatusCodePages(context =>
            new Problem(ProblemTypes.ForStatus(context.HttpContext.Response.StatusCode)).WriteAsync(context.HttpContext));
        app.UseSwaggerUI(options =>
        {
            options.RoutePrefix = "swagger";
            options.SwaggerEndpoint("/openapi/v1.json", "Fleet v1");
            options.DocumentTitle = "Fleet";
        });
        app.UseRouting();
        app.UseAuthentication();
        app.UseRateLimiter();
        app.UseAuthorization();
        app.UseMiddleware<Utf8Only>();
    }

    private static void Map(WebApplication app)
    {
        app.MapOpenApi().AllowAnonymous();
        app.MapHealth();
        app.MapMetrics();
        var routes = app.MapGroup("/v1")
            .AddEndpointFilter<IdFilter>()
            .AddEndpointFilter<RefusalFilter>()
            .WithMetadata(new RequestSizeLimit(RequestLimits.SmallBody));
        routes.MapVms();
        routes.MapPages();
        routes.MapMigrations();
        routes.MapVmLife();
        routes.MapHosts();
        routes.MapHostAdministration();
        routes.MapHits();
        routes.MapFaults();
        routes.MapChanges();
        routes.MapJoinTokens();
        routes.MapTokens();
        routes.MapEnrolment();
        routes.MapRotation();
        routes.MapClaim();
        routes.MapDesired();
        routes.MapHeartbeat();
        routes.MapReports();
        routes.MapStatement();
        routes.MapRestoreOverrides();
    }
}
