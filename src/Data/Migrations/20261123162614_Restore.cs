using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Fleet.Data.Migrations
{
    /// <inheritdoc />
    public partial class Restore : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<string>(
                name: "QuarantineReason",
                table: "vms",
                type: "TEXT",
                maxLength: 64,
                nullable: true);

            migrationBuilder.AddColumn<long>(
                name: "FencedEpoch",
                table: "hosts",
                type: "INTEGER",
                nullable: true);

            migrationBuilder.AddColumn<long>(
                name: "StatedEpoch",
                table: "hosts",
                type: "INTEGER",
                nullable: true);

            migrationBuilder.CreateTable(
                name: "statements",
                columns: table => new
                {
                    Host = table.Column<string>(type: "TEXT", maxLength: 64, nullable: false),
                    Vm = table.Column<string>(type: "TEXT", maxLength: 64, nullable: false),
                    MemoryInstance = table.Column<long>(type: "INTEGER", nullable: false),
                    Right = table.Column<long>(type: "INTEGER", nullable: true),
                    RightMemoryInstance = table.Column<long>(type: "INTEGER", nullable: true),
                    Closed = table.Column<long>(type: "INTEGER", nullable: true),
                    VmmInstance = table.Column<string>(type: "TEXT", maxLength: 128, nullable: true),
                    Live = table.Column<bool>(type: "INTEGER", nullable: false),
                    Unguarded = table.Column<bool>(type: "INTEGER", nullable: false),
                    Sealed = table.Column<bool>(type: "INTEGER", nullable: false),
                    SealedTo = table.Column<string>(type: "TEXT", maxLength: 128, nullable: true),
                    Attach = table.Column<string>(type: "TEXT", nullable: true)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_statements", x => new { x.Vm, x.Host });
                });

            migrationBuilder.CreateIndex(
                name: "IX_statements_Host",
                table: "statements",
                column: "Host");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "statements");

            migrationBuilder.DropColumn(
                name: "QuarantineReason",
                table: "vms");

            migrationBuilder.DropColumn(
                name: "FencedEpoch",
                table: "hosts");

            migrationBuilder.DropColumn(
                name: "StatedEpoch",
                table: "hosts");
        }
    }
}
